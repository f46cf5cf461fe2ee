"""The layer under test: a function that remembers how it was called, so that a failure can say so."""

import contextlib
import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jaxtyping
import torch
from torch import Tensor

from llama import implementation
from llama.implementation import Implementation, Layer, map_leaves

# The judge. Always our own loops in float64, whatever is under test.
REFERENCE = implementation.load("naive")
# Whose gradients ours and others' are compared with: the formula written once in plain torch, in float64.
# That these are the derivatives of the values is what gradcheck proves.
FORMULA = implementation.load("vectorized")


class Mismatch(AssertionError):
    """What is wrong, and where to look; where values differ: what came, what should have come, which are wrong."""

    def __init__(
        self, sentence: str, look_at: str = "", differing: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> None:
        super().__init__(f"{Subject.last.subject.name}: {sentence}" if Subject.last else sentence)
        self.sentence, self.look_at, self.differing = sentence, look_at, differing


@dataclass
class Call:
    subject: "Subject"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    error: Exception | None = None
    result: Any = None

    def name_of(self, value: Any) -> str:
        """`out` where this is the result, `out[1]` where it is a part of it, else nothing."""
        if value is self.result:
            return "out"
        parts = self.result if isinstance(self.result, list | tuple) else []
        return next((f"out[{i}]" for i, part in enumerate(parts) if part is value), "")

    def __repr__(self) -> str:
        """`x[2, 4, 6] float32, weight[6] float32, eps=1e-05`."""
        try:
            names = list(inspect.signature(self.subject.function).parameters)
        except (TypeError, ValueError):
            names = []
        names += [f"argument {i}" for i in range(len(names), len(self.args))]
        return ", ".join(_describe(n, v) for n, v in [*zip(names, self.args, strict=False), *self.kwargs.items()])


class Subject:
    """Calls one layer of one implementation."""

    last: ClassVar[Call | None] = None

    def __init__(self, layer: str, implementation: Implementation):
        self.layer = layer
        self.implementation = implementation
        self.name = f"{layer} ({implementation.name})"
        self.function = getattr(implementation, layer)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_stub(self) -> bool:
        return self.layer in self.implementation.stubs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        Subject.last = call = Call(self, args, kwargs)
        before = _versions(args, kwargs)
        try:
            call.result = self.function(*args, **kwargs)
        except Exception as error:
            call.error = error
            raise
        if _versions(args, kwargs) != before:
            raise Mismatch("an argument was changed: `x = x + y` makes a new tensor, `x += y` writes over the old one")
        return call.result

    def fresh(self) -> Layer:
        """The same function from its file once more, which has kept nothing from earlier calls."""
        source = self.implementation.source
        return getattr(implementation.load(source), self.layer) if source else self.function

    def anew(self) -> "Subject":
        """The same layer with nothing kept from earlier calls."""
        new = copy.copy(self)
        new.function = self.fresh()
        return new

    def expected(self, *args: Any, **kwargs: Any) -> Any:
        """What the naive loops make of the same arguments, in float64 on the CPU."""
        with unchecked():
            return getattr(REFERENCE, self.layer)(*exact(args), **exact(kwargs))

    def formula(self, *args: Any, **kwargs: Any) -> Any:
        """What plain torch makes of the same arguments, in float64 on the CPU."""
        with unchecked():
            return getattr(FORMULA, self.layer)(*exact(args), **exact(kwargs))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without beartype, which takes as long as the loops: annotations are enforced where a layer is under test."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _versions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """How often each tensor among the arguments has been written to, as torch counts it."""
    return [tensor._version for tensor in tensors((args, kwargs))]


def exact(tree: Any) -> Any:
    """The same arguments as the judge takes them: floats in float64, on the CPU."""
    return map_leaves(_exact, tree)


def _exact(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    leaf = leaf.detach().cpu()
    return leaf.double() if leaf.is_floating_point() else leaf


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in it, in order."""
    found: list[Tensor] = []
    map_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, tree)
    return found


def word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _describe(name: str, value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.is_contiguous() else " not contiguous"
        return f"{name}{list(value.shape)} {word(value.dtype)}{layout}"
    if isinstance(value, list | dict) and (count := len(tensors(value))):
        return f"{name} of {count} tensors"
    return f"{name}={value!r}"
