"""Numbers that no honest layer can reach are refused: a layer that keeps its results measures nothing.

Each check names the layer and the cell. All of them run beside the timed calls, never in them.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine as machines
from benchmarks.machine import COPIED, Machine
from llama.implementation import map_leaves, tensors

FAR = 0.1
"""How much of the expected result may be wrong. Roundings, even of a whole model in bfloat16, are a few percent of it,
and the result for other contents is as wrong as it is large. That a layer is right is for the tests to say."""

REACHED = 1.5
"""How many times the machine's own product or copy may be reached: both vary by some ten percent from run to run."""
REACHED_IN_CACHE = 100.0
"""The same of a copy, for what may stay in a cache: 64 cores read some thirty times faster there than from memory."""

WRONG = 1e-3
"""How much of the result may be wrong in float32, whose sums differ by a tenth of that at the largest sizes."""

SLOWER = 10.0
"""How many times as long a call may take on new contents as on old ones, of two calls that find the caches alike."""
FRESH = 3
"""So many calls on new contents, of which the shortest counts."""
SHORT = 1e-3
"""Seconds: a layer that takes longer does not look its result up."""


class Nonsense(AssertionError):
    """A number that says nothing of the layer."""


def check_right(name: str, layer: str, actual: Any, expected: Any) -> None:
    """The result of the warm-up: a layer that is wrong may well be fast."""
    single = all(t.dtype == torch.float32 for t in _tensors(expected))
    if _is_far(actual, expected, WRONG if single else FAR):
        raise Nonsense(
            f"{name}: the layer is wrong on these inputs, so its time says nothing; "
            f"pytest --impl with -k {layer} says what is wrong"
        )


def check_result(name: str, actual: Any, expected: Any) -> None:
    """The result of the timed calls, whose contents are not those of the warm-up."""
    if _is_far(actual, expected):
        raise Nonsense(
            f"{name}: the timed calls returned a wrong result. The contents of the arguments were changed after the "
            f"warm-up; a layer must not return what it computed for the old ones"
        )


def check_fresh(
    name: str, call: Callable[[], Any], change: Callable[[], None], idle: Callable[[], None], seconds: float
) -> None:
    """A call on new contents takes about as long as one on old ones, before which as much was written elsewhere."""
    if seconds > SHORT:
        return
    fresh, old = (min(_timed(call, before) for _ in range(FRESH)) for before in (change, idle))
    if fresh > SLOWER * old:
        raise Nonsense(
            f"{name}: a call takes {1e6 * fresh:.3g} µs on new contents and {1e6 * old:.3g} µs on those of the call "
            f"before, so it was not the layer that was timed, but what it kept"
        )


def check_rate(name: str, amount: float, unit: str, dtype: str, seconds: float, machine: Machine) -> None:
    """No layer does more than the machine can."""
    most = REACHED_IN_CACHE if unit == "byte" and amount < COPIED else REACHED
    if not amount or _share(amount, unit, dtype, seconds, machine) <= most:
        return
    # Where something else ran while the machine was measured, it can do more than that.
    share = _share(amount, unit, dtype, seconds, machines.measured())
    if share > most:
        limit = "copy" if unit == "byte" else "matrix product"
        raise Nonsense(
            f"{name}: {1e6 * seconds:.3g} µs would be {share:,.0%} of this machine's own {limit}, and more than "
            f"{most:.0%} is impossible: was anything computed?"
        )


def _share(amount: float, unit: str, dtype: str, seconds: float, machine: Machine) -> float:
    limit = machine.limit(unit, dtype)
    return amount / seconds / limit if limit else 0.0


def _timed(call: Callable[[], Any], before: Callable[[], None]) -> float:
    before()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _tensors(tree: Any) -> list[Tensor]:
    """All numbers in it, as tensors."""
    found: list[Tensor] = []

    def keep(leaf: Any) -> None:
        if isinstance(leaf, Tensor | int | float):
            found.append(torch.as_tensor(leaf).detach())

    map_leaves(keep, tree)
    return found


def _is_far(result: Any, right: Any, far: float = FAR) -> bool:
    """Over all tensors together: of several gradients one may be nothing but roundings."""
    if isinstance(right, list | bytes) and not tensors(right):  # token ids, merges, a text
        return bool(result != right)
    actual, expected = _tensors(result), _tensors(right)
    if [t.shape for t in actual] != [t.shape for t in expected]:
        return True
    a, e = (torch.cat([t.double().flatten() for t in of]) for of in (actual, expected))
    if not expected[0].is_floating_point():
        return float((a != e).double().mean()) > far
    finite = a.isfinite() & e.isfinite()
    if float(((a != e) & ~finite).double().mean()) > far:
        return True
    return float((a - e)[finite].norm()) > far * float(e[finite].norm())
