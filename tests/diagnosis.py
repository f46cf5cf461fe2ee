"""Which known bug a wrong layer has: the one that does the same as the layer does.

Layer and bugs are asked the same things. First plain calls, in several sizes and seeds, and the call that
failed: a suspect does what the layer does on all of them (values, dtypes, errors, arguments changed,
gradients). Then special ones, in half precision and from the zoo, which tell suspects apart; a layer that
has a second fault there is not let off for the first. A bug is named where it clearly does something else
than a right layer. Where two cannot be told apart, both are named; where none fits, nothing is said.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llama import implementation
from llama.implementation import map_leaves
from tests import strategies, zoo
from tests.assertions import differences
from tests.strategies import ARGUMENTS, DIFFERENTIABLE, RANGES, Arguments, Case
from tests.subject import tensors
from tests.tolerances import tolerance
from tests.zoo import Bug

RIGHT = implementation.load("vectorized")

Layer = Callable[..., Any]
Probe = Callable[[Layer], Any]


@dataclass(frozen=True)
class Raised:
    error: str


def diagnose(layer: str, function: Layer, *calls: Arguments) -> list[Bug]:
    """The bugs of that layer which `function` cannot be told from, on the probes and on these calls."""
    known = _known(layer)
    asked = [_as_probe(layer, arguments) for arguments in calls]
    right = [*known.right, *(_outcome(probe, getattr(RIGHT, layer)) for probe in asked)]
    theirs = [_outcome(probe, function) for probe in [*known.plain, *known.special, *asked]]
    if all(isinstance(outcome, Raised) for outcome in theirs):
        return []  # it gets through no call; its own error says more than that others raise everywhere too
    first, second = len(known.plain), len(known.plain) + len(known.special)
    plain, special = [*range(first), *range(second, len(theirs))], range(first, second)

    def alike(outcomes: list[Any], which: Iterable[int], slack: float = 1) -> bool:
        return all(_same(layer, theirs[i], outcomes[i], slack) for i in which)

    suspects = {bug: outcomes for bug, outcomes in known.bugs.items() if alike(outcomes, range(first))}
    if asked and suspects:
        # New functions, asked all of it again: they have kept nothing from calls that the layer has not seen.
        fresh = {bug.name: bug.function for bug in zoo.bugs(layer)}
        probes = [*known.plain, *known.special, *asked]
        suspects = {bug: [_outcome(probe, fresh[bug.name]) for probe in probes] for bug in suspects}
    agreeing = [bug for bug, outcomes in suspects.items() if alike(outcomes, plain)]
    exact = [bug for bug in agreeing if alike(suspects[bug], special)]
    # Clearly wrong, and not merely as far from right as rounding may take a right layer towards a bug.
    if not alike(right, (i for i in range(first) if not isinstance(theirs[i], Raised)), slack=4):
        return exact or agreeing
    # What the plain calls do not show is named only where nothing speaks against it.
    return exact if not alike(right, range(first, len(right)), slack=4) else []


@dataclass
class _Known:
    """The probes of a layer, and what a right one and each bug make of them (plain ones first)."""

    plain: list[Probe]
    special: list[Probe]
    right: list[Any]
    bugs: dict[Bug, list[Any]]


@functools.cache
def _known(layer: str) -> _Known:
    axes, make = ARGUMENTS[layer]
    exact, single, *halves = strategies.ALL if len(strategies.ALL) == 4 else (strategies.ALL[0], *strategies.ALL)
    cases = []
    for seed, dtype in enumerate([exact] * 4 + [single] * 2 + halves):
        # Large and distinct sizes, and some seeds for each, so that what is kept between calls shows.
        sizes = {a: max(RANGES[a][0], RANGES[a][1] - (seed // 2 + i) % 3) for i, a in enumerate(axes.split())}
        cases.append(Case(sizes, dtype, seed=101 * seed))
    calls = [_as_probe(layer, make(case)) for case in cases]
    plain = calls[:6]
    special = calls[6:] if strategies.dtypes(layer) == strategies.ALL else []
    special += [_as_probe(layer, probe) for probe in zoo.probes(layer)]
    bugs = {bug: [_outcome(probe, bug.function) for probe in [*plain, *special]] for bug in zoo.bugs(layer)}
    return _Known(plain, special, [_outcome(probe, getattr(RIGHT, layer)) for probe in [*plain, *special]], bugs)


def _outcome(probe: Probe, function: Layer) -> Any:
    try:
        return probe(function)
    except Exception as error:
        return Raised(type(error).__name__)


def _as_probe(layer: str, arguments: Arguments | Probe) -> Probe:
    """All that a call does: its result, the arguments after it, and in the widest dtype the gradients."""
    if callable(arguments):
        return arguments

    def probe(function: Layer) -> Any:
        args, kwargs = map_leaves(_copy, arguments)
        leaves = [t for i in DIFFERENTIABLE.get(layer, ()) for t in tensors(args[i]) if t.dtype == torch.float64]
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


def _another(leaf: Any) -> Any:
    """The same values in other memory: torch refuses to write over a leaf, and a bug that does so is to be seen."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _same(layer: str, a: Any, b: Any, slack: float = 1) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(layer, x, y, slack) for x, y in zip(a, b, strict=True))
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        if isinstance(a, float) and isinstance(b, float):
            a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        else:
            return type(a) is type(b) and bool(a == b)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if torch.equal(a, b):
        return True  # mostly, and much faster to see
    both_nan = a.isnan() & b.isnan()
    within = slack * tolerance(a.dtype, layer) if a.is_floating_point() else None
    _, wrong = differences(a.masked_fill(both_nan, 0), b.masked_fill(both_nan, 0), layer, within)
    return not wrong.any()
