"""Which known bug a wrong layer has: the one that does the same on every probe.

The layer and the bugs of its zoo are asked the same things: calls with several sizes, dtypes and seeds, what
the zoo adds, and the call that failed. A bug is named when it does what the layer does on all of them
(values, dtypes, errors, arguments changed, gradients), and clearly something else than a right layer on at
least one. Where two bugs cannot be told apart, both are named; where none fits, nothing is said.
"""

import functools
from collections.abc import Callable
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


def diagnose(layer: str, function: Layer, *calls: Arguments) -> list[Bug]:
    """The bugs of that layer which `function` cannot be told from, on the probes and on these calls."""
    probes, right, known = _known(layer)
    theirs = [_outcome(probe, function) for probe in probes]
    suspects = [bug for bug, outcomes in known.items() if _same(layer, theirs, outcomes)]
    asked = [_as_probe(layer, arguments) for arguments in calls]
    if asked and suspects:
        theirs += [_outcome(probe, function) for probe in asked]
        # New functions, which have kept nothing from calls that the layer has not seen.
        fresh = {bug.name: bug for bug in zoo.bugs(layer)}
        outcomes = {bug: [_outcome(p, fresh[bug.name].function) for p in [*probes, *asked]] for bug in suspects}
        suspects = [bug for bug in suspects if _same(layer, theirs, outcomes[bug])]
        right = right + [_outcome(probe, getattr(RIGHT, layer)) for probe in asked]
    # Not merely between the layer and the bug, as rounding may lie, but clearly away from what is right.
    return [bug for bug in suspects if not _same(layer, right, theirs, slack=4)]


@functools.cache
def _known(layer: str) -> tuple[list[Probe], list[Any], dict[Bug, list[Any]]]:
    """The probes of that layer, and what a right one and each bug make of them."""
    probes = _probes(layer)
    outcomes = {bug: [_outcome(probe, bug.function) for probe in probes] for bug in zoo.bugs(layer)}
    return probes, [_outcome(probe, getattr(RIGHT, layer)) for probe in probes], outcomes


def _probes(layer: str) -> list[Probe]:
    axes, make = ARGUMENTS[layer]
    exact, single, *halves = strategies.ALL if len(strategies.ALL) == 4 else (strategies.ALL[0], *strategies.ALL)
    dtypes = [exact] * 6 + [single] * 2 + (halves if strategies.dtypes(layer) == strategies.ALL else [])
    cases = []
    for seed, dtype in enumerate(dtypes):
        # Large and distinct sizes, and some seeds for each, so that what is kept between calls shows.
        sizes = {a: max(RANGES[a][0], RANGES[a][1] - (seed // 3 + i) % 3) for i, a in enumerate(axes.split())}
        cases.append(Case(sizes, dtype, seed=101 * seed))
    return [_as_probe(layer, p) for p in [*(make(case) for case in cases), *zoo.probes(layer)]]


def _outcome(probe: Probe, function: Layer) -> Any:
    try:
        return probe(function)
    except Exception as error:
        return type(error).__name__


def _as_probe(layer: str, arguments: Arguments | Probe) -> Probe:
    """All that a call does: its result, the arguments after it, and in the widest dtype the gradients."""
    if callable(arguments):
        return arguments

    def probe(function: Layer) -> Any:
        args, kwargs = map_leaves(_copy, arguments)
        leaves = [t for i in DIFFERENTIABLE.get(layer, ()) for t in tensors(args[i]) if t.dtype == torch.float64]
        for leaf in leaves:
            leaf.requires_grad_()
        result = function(*args, **kwargs)
        gradients = []
        if leaves and isinstance(result, Tensor):
            towards = torch.linspace(-4, 8, result.numel(), dtype=result.dtype, device=result.device)
            # As a sum, and not as grad_outputs, for which torch imports sympy: a second that a learner would wait.
            gradients = list(torch.autograd.grad((result.flatten() * towards).sum(), leaves, allow_unused=True))
        return [result, *tensors((args, kwargs)), *gradients]

    return probe


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
    both_nan = a.isnan() & b.isnan()
    within = slack * tolerance(a.dtype, layer) if a.is_floating_point() else None
    _, wrong = differences(a.masked_fill(both_nan, 0), b.masked_fill(both_nan, 0), layer, within)
    return not wrong.any()
