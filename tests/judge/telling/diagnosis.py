"""Which known bug a wrong layer has: the one that does the same as the layer does.

Layer and bugs are asked the same things. First plain calls, in several sizes and seeds, and the call that
failed: a suspect does what the layer does on all of them (values, dtypes, errors, arguments changed,
gradients). Then special ones, in half precision and from the zoo, which tell suspects apart; a layer that
has a second fault there is not let off for the first. A bug is named where it clearly does something else
than a right layer. Where two cannot be told apart, both are named; where none fits, `behind_other_faults` asks for
values alone, and where none fits these either, nothing is said.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llama import implementation
from llama.implementation import Claims, map_leaves, tensors
from llama.layers import parameters_of, takes_tensors
from tests import zoo
from tests.cases import target
from tests.cases.calls import FLAGS, Arguments, arguments, calls_of
from tests.cases.case import RANGES, Case
from tests.judge.assertions import differences
from tests.judge.subject import unchecked
from tests.judge.telling.repairs import Result, named, repair
from tests.judge.tolerances import HALF, tolerance
from tests.zoo import Bug

RIGHT = implementation.load("vectorized")

LONGEST = 300
"""Ids and bytes of a call of plain Python values that the bugs are asked too."""

Layer = Callable[..., Any]
Probe = Callable[[Layer], Any]


@dataclass(frozen=True)
class Raised:
    error: str


class Outcomes:
    """What a function makes of the probes, asked in their order, and no further than anybody looks."""

    def __init__(self, probes: list[Probe], function: Layer):
        self.probes, self.function = probes, function
        self.known: list[Any] = []

    def __getitem__(self, index: int) -> Any:
        while len(self.known) <= index:
            self.known.append(_outcome(self.probes[len(self.known)], self.function))
        return self.known[index]


def diagnose(layer: str, function: Layer, *calls: Arguments) -> list[Bug]:
    """The bugs of that layer which `function` cannot be told from, on the probes and on these calls."""
    known = _known(layer, target.CLAIMS)
    asked = [_as_probe(layer, call) for call in _short(layer, calls)]
    probes = [*known.plain, *known.special, *asked]
    theirs, right = Outcomes(probes, function), Outcomes(probes, getattr(RIGHT, layer))
    if all(isinstance(theirs[i], Raised) for i in range(len(probes))):
        return []  # it gets through no call; its own error says more than that others raise everywhere too
    # Asked anew where a call has been added: they have kept nothing from calls that the layer has not seen.
    bugs = {bug: Outcomes(probes, bug.function) for bug in zoo.bugs(layer)} if asked else known.bugs
    first, second = len(known.plain), len(known.plain) + len(known.special)

    def named(floor: float) -> list[Bug]:
        def alike(outcomes: Outcomes, which: Iterable[int], slack: float = 1) -> bool:
            return all(_same(layer, theirs[i], outcomes[i], slack, floor) for i in which)

        plain = [bug for bug, outcomes in bugs.items() if alike(outcomes, range(first))]
        agreeing = [bug for bug in plain if alike(bugs[bug], range(second, len(probes)))]
        exact = [bug for bug in agreeing if alike(bugs[bug], range(first, second))]
        # Clearly wrong, and not merely as far from right as rounding may take a right layer towards a bug.
        if not alike(right, (i for i in range(first) if not isinstance(theirs[i], Raised)), slack=4):
            return exact or agreeing
        # What the plain calls do not show is named only where nothing speaks against it.
        return exact if not alike(right, range(first, len(probes)), slack=4) else []

    # Many a first draft computes float64 in float32, which is another fault than the bug that is looked for.
    return named(floor=0.0) or named(floor=tolerance(torch.float32))


def behind_other_faults(layer: str, function: Layer, *calls: Arguments) -> list[Bug]:
    """The bug whose values `function` has, where other faults keep it from doing the same in everything.

    Asked are only values, in no half precision, and only calls that it gets through: whether it takes other axes,
    keeps its arguments, has gradients or rounds as it should is another matter, and so is what is NaN. A bug is named
    where its wrong values are those of `function` in two calls at least, among them those of `calls`, and where
    `function` is right in no call in which the bug is wrong. In what other calls something else may be wrong too.
    """
    asked = [_values(call) for call in _not_in_half(_short(layer, calls))]
    known = _known(layer, target.CLAIMS)
    probes = [*asked, *map(_values, known.calls), *map(_values, _more(layer, target.CLAIMS))]
    theirs, right = Outcomes(probes, function), Outcomes(probes, getattr(RIGHT, layer))
    numbers = [i for i in range(len(probes)) if (of := _numbers(theirs[i])) and not all(n.isnan().all() for n in of)]
    wrong = [i for i in numbers if not _same_numbers(layer, theirs[i], right[i], slack=4)]

    # A whole model takes long, and shows most bugs in any call.
    few = 4 if calls_of(layer).rounds_within else len(wrong)

    def agrees(bug: Outcomes, i: int) -> bool:
        return _same_numbers(layer, theirs[i], bug[i])

    def shared(bug: Outcomes) -> int:
        """In how many calls the bug explains the values, and 0 where anything speaks against it."""
        if not any(agrees(bug, i) for i in wrong[:few]) or not all(agrees(bug, i) for i in wrong if i < len(asked)):
            return 0
        if any(not _same_numbers(layer, theirs[i], bug[i], slack=4) for i in numbers if i not in wrong):
            return 0
        return sum(agrees(bug, i) for i in wrong)

    # As in `diagnose`: asked anew where a call has been added.
    anew = {bug: Outcomes(probes, bug.function) for bug in zoo.bugs(layer)} if asked else {}
    bugs = anew or _bugs_in_more(layer, target.CLAIMS)
    counts = {bug: shared(outcomes) for bug, outcomes in bugs.items()} if wrong else {}
    most = max([2, *counts.values()])
    found = [bug for bug, count in counts.items() if count == most]
    return found if len(found) <= 2 else []


def lesser_faults(layer: str, function: Layer, bug: Bug) -> list[str]:
    """What else is wrong with a layer that has the values of this bug, as far as that is sure."""
    sizes = {axis: RANGES[axis][1] for axis in calls_of(layer).sizes.split()}
    exact, *others = target.ALL
    faults: list[str] = []
    for dtype in (exact, *(d for d in others if d in HALF)):
        call = arguments(layer, Case(dict(sizes), dtype, seed=1))
        theirs, expected = (_outcome(_values(call), f) for f in (function, bug.function))
        if isinstance(theirs, Raised):
            given = zip(parameters_of(layer), call[0], strict=False)
            shapes = ", ".join(f"{name}{list(t.shape)}" for name, t in given if isinstance(t, Tensor))
            return [*faults, f"it raises {theirs.error} for {shapes}"]
        (result, *after), (right, *before) = theirs, expected
        if any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)):
            return [*faults, "an argument is changed"]
        got, wanted = ([t.dtype for t in tensors(of)] for of in (result, right))
        kind = str(dtype).removeprefix("torch.")
        if got != wanted:
            faults += [f"in {kind} the result is {str(got[0]).removeprefix('torch.')}"] if got else []
        elif _is_nan(result) and not _is_nan(right):
            return [*faults, "some results are NaN"]
        elif not _same(layer, result, right, 4, 0.0):
            if dtype == exact and not _same(layer, result, right, 4, tolerance(torch.float32)):
                return faults  # what that is would be a guess
            rule = "something is computed in float32" if dtype == exact else "sums are rounded, which belong in float32"
            faults.append(f"in {kind} {rule}")
    return faults


def _is_nan(result: Any) -> bool:
    return any(bool(t.isnan().any()) for t in tensors(result))


def repaired(layer: str, function: Layer, *calls: Arguments) -> str:
    """Where no bug fits: the one change that would make the result right, in a sentence, or nothing."""
    results = []
    for call in [*_known(layer, target.CLAIMS).calls, *_not_in_half(calls)]:
        theirs, right = (_numbers(_outcome(_values(call), f)) for f in (function, getattr(RIGHT, layer)))
        if theirs and len(theirs) == len(right):
            pairs = [(a.detach().cpu(), e.detach().cpu()) for a, e in zip(theirs, right, strict=True)]
            results.append([Result(*pair, *named(layer, *call)) for pair in pairs])
    return repair(layer, results)


def _short(layer: str, calls: Iterable[Arguments]) -> list[Arguments]:
    """Those that every bug can be asked in a moment."""
    return [call for call in calls if takes_tensors(layer) or sum(map(_length, call[0])) <= LONGEST]


def _length(value: Any) -> int:
    """Of a list or bytes; of words, all of theirs."""
    return sum(map(len, value)) if isinstance(value, dict) else len(value) if isinstance(value, list | bytes) else 0


def _not_in_half(calls: Iterable[Arguments]) -> list[Arguments]:
    return [call for call in calls if not any(t.dtype in HALF for t in tensors(call))]


def _numbers(outcome: Any) -> list[Tensor]:
    """The values of a call, without its arguments and gradients; nothing where it raised or returned something else."""
    if isinstance(outcome, Raised) or not outcome:
        return []
    parts = _flat(outcome[0])
    parts = [torch.tensor(part, dtype=torch.float64) if type(part) in (int, float) else part for part in parts]
    return [part.double() for part in parts] if all(isinstance(part, Tensor) for part in parts) else []


def _flat(result: Any) -> list[Any]:
    """What is in a result, and in the lists and mappings in it; in a mapping in the order of the names."""
    if isinstance(result, dict):
        return [part for name in sorted(result, key=str) for part in _flat(result[name])]
    if isinstance(result, list | tuple):
        return [part for of in result for part in _flat(of)]
    return [result]


def _same_numbers(layer: str, a: Any, b: Any, slack: float = 1) -> bool:
    """Whether two outcomes have the same values as far as float32 is exact, apart from those that are NaN in `a`."""
    ours, others = _numbers(a), _numbers(b)
    if len(ours) != len(others) or any(x.shape != y.shape for x, y in zip(ours, others, strict=True)):
        return False
    within = slack * tolerance(torch.float32)
    for x, y in zip(ours, others, strict=True):
        hidden = x.isnan()
        _, wrong = differences(x.masked_fill(hidden, 0), y.masked_fill(hidden, 0), layer, within)
        if wrong.any():
            return False
    return True


@dataclass
class _Known:
    calls: list[Arguments]
    """Those of `plain` in float64."""
    plain: list[Probe]
    special: list[Probe]
    bugs: dict[Bug, Outcomes]


@functools.cache
def _known(layer: str, claims: Claims) -> _Known:
    """The probes of that layer, as far as it claims them, and its bugs as far as they have been asked."""
    axes = calls_of(layer).sizes
    exact, single, *halves = target.ALL if len(target.ALL) == 4 else (target.ALL[0], *target.ALL)
    cases = []
    for seed, dtype in enumerate([exact] * 4 + [single] * 2 + halves):
        # Large and distinct sizes, and some seeds for each, so that what is kept between calls shows.
        sizes = {a: max(RANGES[a][0], RANGES[a][1] - (seed // 2 + i) % 3) for i, a in enumerate(axes.split())}
        cases.append(Case(sizes, dtype, seed=101 * seed))
    calls = [arguments(layer, case) for case in cases]
    probes = [_as_probe(layer, call) for call in calls]
    plain = probes[:6]
    special = probes[6:] + [_as_probe(layer, probe) for probe in zoo.probes(layer)]
    return _Known(
        calls[:4], plain, special, {bug: Outcomes([*plain, *special], bug.function) for bug in zoo.bugs(layer)}
    )


def _values(call: Arguments) -> Probe:
    """What a call returns, and the arguments after it."""

    def probe(function: Layer) -> Any:
        args, kwargs = map_leaves(_copy, call)
        return [function(*args, **kwargs), *tensors((args, kwargs))]

    return probe


@functools.cache
def _more(layer: str, claims: Claims) -> list[Arguments]:
    """Calls in float64 with all flags, so that in some of them lesser faults do not show."""
    ranges = {axis: RANGES[axis] for axis in calls_of(layer).sizes.split()}
    seeds = [*range(FLAGS), *range(FLAGS, FLAGS + 16 * 4, 16)]
    sizes = [
        {axis: max(low, high - (seed + i) % 3) for i, (axis, (low, high)) in enumerate(ranges.items())}
        for seed in seeds
    ]
    cases = [Case(of, target.ALL[0], seed=seed) for of, seed in zip(sizes, seeds, strict=True)]
    return [arguments(layer, case) for case in cases]


@functools.cache
def _bugs_in_more(layer: str, claims: Claims) -> dict[Bug, Outcomes]:
    """The bugs of that layer, as far as they have been asked for the values of the plain calls and of `_more`."""
    probes = [_values(call) for call in [*_known(layer, claims).calls, *_more(layer, claims)]]
    return {bug: Outcomes(probes, bug.function) for bug in zoo.bugs(layer)}


def _outcome(probe: Probe, function: Layer) -> Any:
    try:
        # What is asked is what a layer does; that ours keep to their annotations is tested elsewhere.
        with unchecked():
            return map_leaves(_copy, probe(function))  # of a result that a later call writes over, what it was
    except Exception as error:
        return Raised(type(error).__name__)


def _as_probe(layer: str, call: Arguments | Probe) -> Probe:
    """All that a call does: its result, the arguments after it, and in the widest dtype the gradients."""
    if callable(call):
        return call

    def probe(function: Layer) -> Any:
        args, kwargs = map_leaves(_copy, call)
        leaves = [t for i in _gradients(layer) for t in tensors(args[i]) if t.dtype == torch.float64]
        for leaf in leaves:
            leaf.requires_grad_()
        args, kwargs = map_leaves(_another, (args, kwargs))
        result = function(*args, **kwargs)
        gradients: list[Any] = []
        if leaves and isinstance(result, Tensor):
            towards = torch.linspace(-4, 8, result.numel(), dtype=result.dtype, device=result.device)
            # As a sum, and not as grad_outputs, for which torch imports sympy: a second that a learner would wait.
            total = (result.flatten() * towards).sum()
            gradients = list(torch.autograd.grad(total, leaves, allow_unused=True)) if total.requires_grad else [None]
        return [result, *tensors((args, kwargs)), *gradients]

    return probe


def _gradients(layer: str) -> tuple[int, ...]:
    return () if "forward" in target.CLAIMS.words else calls_of(layer).gradients


def _another(leaf: Any) -> Any:
    """The same values in other memory: torch refuses to write over a leaf, and a bug that does so is to be seen."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _same(layer: str, a: Any, b: Any, slack: float, floor: float) -> bool:
    """Whether two outcomes are the same within the dtype's tolerance, or `floor` where that is wider, times slack."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(layer, x, y, slack, floor) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(layer, a[name], b[name], slack, floor) for name in a)
    if isinstance(a, float) and isinstance(b, float):
        a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and bool(a == b)
    if (a.shape, a.dtype, a.layout) != (b.shape, b.dtype, b.layout):
        return False  # a sparse gradient, too, is like no bug
    if torch.equal(a, b):
        return True  # mostly, and much faster to see
    both_nan = a.isnan() & b.isnan()
    within = slack * max(tolerance(a.dtype, layer), floor) if a.is_floating_point() else None
    _, wrong = differences(a.masked_fill(both_nan, 0), b.masked_fill(both_nan, 0), layer, within)
    return not wrong.any()
