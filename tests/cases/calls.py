"""Typical calls of each layer, for the tests, the diagnosis and the benchmarks that hold for all layers.

    @given(case=drawn("rope"))
    def test_...(case):
        args, kwargs = arguments("rope", case)

What is known of one layer stands in the file of its name: `CALLS` in tests/cases/model/rope.py.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from llama.layers import CHAPTER, LAYERS
from tests.cases import target
from tests.cases.case import Case, cases

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def positional(*args: Any) -> Arguments:
    """A call without keywords."""
    return args, {}


@dataclass(frozen=True)
class Calls:
    """How a layer is called."""

    sizes: str
    """The sizes to draw, by name."""
    arguments: Callable[[Case], Arguments]
    """Typical arguments, made from a case."""
    gradients: tuple[int, ...] = ()
    """The arguments that it has a gradient for. None for the optimizer and sampling, which follow the gradients, and
    for frequencies, which are constants."""
    batched: tuple[int | str, ...] = ()
    """The arguments that have a batch axis."""
    turns: bool = False
    """Whether it turns by angles, which the contract asks for in float32: its float64 values are only as exact."""
    in_half_precision: bool = True
    """Whether half precision can be held to the tolerance of the dtype. Not in a layer of many layers, in which the
    rounding of each adds up: there the parts are compared."""


@functools.cache
def calls_of(layer: str) -> Calls:
    """What the file of that layer says."""
    found: Calls = importlib.import_module(f"tests.cases.{CHAPTER[layer]}.{layer}").CALLS
    return found


def differentiable() -> list[str]:
    """The layers that have a gradient."""
    return [layer for layer in LAYERS if calls_of(layer).gradients]


def batched() -> list[str]:
    """The layers over a batch."""
    return [layer for layer in LAYERS if calls_of(layer).batched]


def dtypes(layer: str) -> Sequence[torch.dtype]:
    """Those in which the values of a layer can be held to the tolerance of the dtype."""
    return target.ALL if calls_of(layer).in_half_precision else target.EXACT


def drawn(
    layer: str, dtypes: Sequence[torch.dtype] | None = None, layouts: bool = False, **ranges: tuple[int, int]
) -> st.SearchStrategy[Case]:
    """Cases with the sizes of that layer; `arguments` makes the arguments."""
    return cases(calls_of(layer).sizes, dtypes, layouts, **ranges)


def arguments(layer: str, case: Case) -> Arguments:
    """Typical arguments of that layer, made from the case."""
    return calls_of(layer).arguments(case)
