"""What a layer may return: plain tensors and numbers, in memory of their own that stays as it is."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.cases import target
from tests.judge.apart.outcomes import NUMBERS

KEPT = 4
"""So many results of earlier calls are watched: two buffers that are used in turn show in three."""


def problem(result: Any, given: list[Tensor], may_return_arguments: bool = False) -> str:
    """What is wrong with it, whatever its values; nothing where it is a plain result."""
    memory = set() if may_return_arguments else {t.untyped_storage().data_ptr() for t in given if t.numel()}
    return next((sentence for name, part in parts(result) if (sentence := _problem(name, part, memory))), "")


def parts(result: Any, name: str = "out") -> Iterator[tuple[str, Any]]:
    """`out`, or `out[0]`, `out[1]` and so on: the tensors and numbers in it."""
    if type(result) in (list, tuple):
        for i, part in enumerate(result):
            yield from parts(part, f"{name}[{i}]")
    elif type(result) is dict:
        for key, part in result.items():
            yield from parts(part, f"{name}[{key!r}]")
    else:
        yield name, result


def _problem(name: str, part: Any, memory: set[int]) -> str:
    kind = type(part)
    if kind in NUMBERS or (issubclass(kind, np.generic) and kind.__module__ == "numpy"):
        return ""
    if kind is not Tensor:
        if part is None:
            return f"{name} must be a tensor, got None: is there a return?"
        plain = "plain " if issubclass(kind, (Tensor, *NUMBERS)) else ""
        return f"{name} must be a {plain}tensor, got {kind.__name__}"
    if part.layout != torch.strided or part.is_nested or part.is_quantized:
        kept_as = "quantized" if part.is_quantized else "nested" if part.is_nested else str(part.layout)
        return f"{name} must be a dense tensor, got one that is {kept_as.removeprefix('torch.')}"
    if part.is_complex():
        return f"{name} must be real, got {str(part.dtype).removeprefix('torch.')}"
    if part.device.type not in ("cpu", target.DEVICE.type):
        return f"{name} must be on {target.DEVICE}, got {part.device}"
    if part.requires_grad and part.is_leaf:
        return f"{name} asks for a gradient, but nothing leads from it to the arguments: detach has cut it off"
    if part.numel() and part.untyped_storage().data_ptr() in memory:
        return f"{name} lies in the memory of an argument: return a new tensor"
    return ""


def with_number(result: Any, place: str) -> Any:
    """The result with a Python float at that place (`out`, `out[1]`), whatever kind of number stands there."""
    if not place:
        return result
    if place == "out":
        return _number(result)
    at = int(place.removeprefix("out[").removesuffix("]"))
    kind = type(result)
    if kind not in (list, tuple) or len(result) <= at:
        return result
    return kind(_number(part) if i == at else part for i, part in enumerate(result))


def _number(value: Any) -> Any:
    """A Python float; what carries a graph stays, so that a test can see that."""
    is_scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point() and not value.requires_grad
    return float(value) if is_scalar or isinstance(value, np.floating) else value


class Kept:
    """Results of the last calls beside copies of them, in memory that no layer has held."""

    def __init__(self) -> None:
        self.calls: deque[list[tuple[Any, Any, int]]] = deque(maxlen=KEPT)

    def add(self, result: Any) -> None:
        found = [part for _, part in parts(result) if isinstance(part, Tensor)]
        kept: list[tuple[Any, Any, int]] = [(part, copied(part), version(part)) for part in found]
        if isinstance(result, list) and not found:
            kept.append((result, list(result), 0))  # of numbers and tuples, which nobody can change
        self.calls.append(kept)

    def forget_what_is_written(self) -> None:
        """Before a call: what a test has written to since is no longer a result."""
        for call in self.calls:
            call[:] = [kept for kept in call if version(kept[0]) == kept[2]]

    def changed(self) -> bool:
        """Whether one of them holds other values by now."""
        return any(not same(now, then) for call in self.calls for now, then, _ in call)

    def last_changed(self) -> bool:
        """Whether the last of them does."""
        return bool(self.calls) and any(not same(now, then) for now, then, _ in self.calls[-1])


def version(part: Any) -> int:
    """How often a tensor has been written to, as torch counts it; in inference mode torch does not count."""
    return part._version if isinstance(part, Tensor) and not part.is_inference() else 0


def copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def same(a: Any, b: Any) -> bool:
    """The same values, where NaN is NaN."""
    if not isinstance(a, Tensor):
        return bool(a == b)
    a = a.detach()
    if torch.equal(a, b):
        return True  # mostly, and soonest seen
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())
