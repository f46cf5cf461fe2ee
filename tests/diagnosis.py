"""Which known bug a wrong layer has: the one that does the same on every input.

The layer and the bugs of its zoo are called with the same arguments: several sizes, dtypes and seeds, what
the zoo adds, and the call that failed. A bug is named when it does what the layer does on all of them
(values, dtypes, errors, arguments changed, gradients), and something else than a right layer on at least
one. Where two bugs cannot be told apart, both are named; where none fits, nothing is said.
"""

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


def diagnose(layer: str, function: Callable[..., Any], *calls: Arguments) -> list[Bug]:
    """The bugs of that layer which `function` cannot be told from, on these calls and on the probes."""
    suspects, shown = zoo.bugs(layer), set()
    for arguments in [*calls, *_probes(layer)]:
        theirs, right = (_outcome(layer, f, arguments) for f in (function, getattr(RIGHT, layer)))
        outcomes = {bug: _outcome(layer, bug.function, arguments) for bug in suspects}
        suspects = [bug for bug in suspects if _same(layer, theirs, outcomes[bug])]
        # Not merely between the layer and the bug, as rounding may lie, but clearly away from what is right.
        shown |= {bug for bug in suspects if not _same(layer, right, outcomes[bug], slack=4)}
    return [bug for bug in suspects if bug in shown]


def _probes(layer: str) -> list[Arguments]:
    axes, make = ARGUMENTS[layer]
    exact, single, *halves = strategies.ALL if len(strategies.ALL) == 4 else (strategies.ALL[0], *strategies.ALL)
    dtypes = [exact] * 6 + [single] * 2 + (halves if strategies.dtypes(layer) == strategies.ALL else [])
    cases = []
    for seed, dtype in enumerate(dtypes):
        # Large and distinct sizes, and some seeds for each, so that what is kept between calls shows.
        sizes = {a: max(RANGES[a][0], RANGES[a][1] - (seed // 3 + i) % 3) for i, a in enumerate(axes.split())}
        cases.append(Case(sizes, dtype, seed=101 * seed))
    return [make(case) for case in cases] + zoo.probes(layer)


def _outcome(layer: str, function: Callable[..., Any], arguments: Arguments) -> Any:
    """All that a call does: its result, the arguments after it, the gradients; or the kind of its error."""
    args, kwargs = map_leaves(_copy, arguments)
    leaves = [t for i in DIFFERENTIABLE.get(layer, ()) for t in tensors(args[i]) if t.dtype == torch.float64]
    try:
        for leaf in leaves:
            leaf.requires_grad_()
        result = function(*args, **kwargs)
        gradients = []
        if leaves:
            towards = [
                torch.linspace(-4, 8, t.numel(), dtype=t.dtype, device=t.device).reshape(t.shape) for t in [result]
            ]
            gradients = list(torch.autograd.grad([result], leaves, towards, allow_unused=True))
    except Exception as error:
        return type(error).__name__
    return [result, *tensors((args, kwargs)), *gradients]


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
