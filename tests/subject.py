"""The layer under test: a function that remembers how it was called, so that a failure can say so."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from llama import implementation
from llama.implementation import Implementation

# The judge. Always our own loops in float64, whatever is under test.
REFERENCE = implementation.load("naive")


@dataclass(frozen=True)
class Call:
    subject: "Subject"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Subject:
    """Calls one layer of one implementation."""

    last: ClassVar[Call | None] = None

    def __init__(self, layer: str, implementation: Implementation):
        self.layer = layer
        self.name = f"{layer} ({implementation.name})"
        self.function = getattr(implementation, layer)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        Subject.last = Call(self, args, kwargs)
        return self.function(*args, **kwargs)

    def expected(self, *args: Any, **kwargs: Any) -> Any:
        """What the naive loops make of the same arguments, in float64 on the CPU."""
        return getattr(REFERENCE, self.layer)(*exact(args), **exact(kwargs))


def exact(tree: Any) -> Any:
    """The same arguments as the judge takes them: floats in float64, on the CPU."""
    return implementation.map_leaves(_exact, tree)


def _exact(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    leaf = leaf.detach().cpu()
    return leaf.double() if leaf.is_floating_point() else leaf
