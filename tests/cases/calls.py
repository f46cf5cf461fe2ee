"""Typical calls of each layer, for the tests, the diagnosis and the benchmarks that hold for all layers.

    @given(case=drawn("rope"))
    def test_...(case):
        args, kwargs = arguments("rope", case)

What is known of one layer stands in the file of its name: `CALLS` in tests/cases/model/rope.py.
"""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama.layers import CHAPTER, LAYERS, parameters_of
from tests.cases import target
from tests.cases.case import Case, cases

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


FLAGS = 14
"""So many seeds in a row go through every flag and every shape of a mask."""
SAME_FLAGS = 2**6 * 3 * 5 * 7
"""Seeds that lie so far apart make the same flags and numbers in every layer, and other tensors."""


def positional(*args: Any) -> Arguments:
    """A call without keywords."""
    return args, {}


class Point(NamedTuple):
    """A function, the tensors at which its gradient is taken, and the gradient of the loss at its result."""

    function: Callable[..., Tensor]
    at: tuple[Tensor, ...]
    grad: Tensor


Forward = Callable[..., Point]
"""From an implementation and the arguments of a gradient to the layer as a function of what has a gradient."""


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
    batched: Mapping[int | str, int] = field(default_factory=dict)
    """The arguments that have a batch axis, each with its number of axes: a mask or positions with fewer are shared."""
    leading: tuple[int, ...] = ()
    """The arguments whose first two axes stand for any number of leading ones."""
    very_large: tuple[Mapping[str, int], ...] = ()
    """Sizes beyond what counters of 16 bits, grids and caches hold, one or two axes at a time."""
    turns: bool = False
    """Whether it turns by angles, which the contract asks for in float32: its float64 values are only as exact."""
    multiplies: bool = False
    """Whether it is made of products of matrices, which autocast computes in half precision."""
    rounds_within: bool = False
    """Whether it is made of layers that each round their results to half precision, so that their errors add up."""
    number: str = ""
    """`out` or `out[1]`, where a number is meant: a float, a NumPy float, or a tensor without axes of any dtype."""
    results: tuple[str, ...] = ("out",)
    """What its results are called, in order."""
    batched_results: tuple[int, ...] = (0,)
    """Of several results, those that have a batch axis; the others are sums over the batch."""
    double_too: bool = False
    """Whether float results may be float64 in place of float32 where the layer was given float64."""
    forward: Forward | None = None
    """Of a gradient: what it is the gradient of."""
    may_return_arguments: bool = False
    """Whether a tensor that stays as it is may be returned itself."""


def backward_of(
    layer: Calls, arguments: Callable[[Case], Arguments], forward: Forward, results: tuple[str, ...], **more: Any
) -> Calls:
    """How the gradient of that layer is called: for the same sizes, with what is as it is there."""
    own = {"gradients": (), "batched": {}, "leading": ()} | more
    return replace(layer, arguments=arguments, forward=forward, results=results, **own)


@functools.cache
def calls_of(layer: str) -> Calls:
    """What the file of that layer says."""
    found: Calls = importlib.import_module(f"tests.cases.{CHAPTER[layer]}.{layer}").CALLS
    return found


def differentiable() -> list[str]:
    """The layers that have a gradient."""
    return [layer for layer in LAYERS if calls_of(layer).gradients]


def gradients() -> list[str]:
    """The layers that are the gradient of another."""
    return [layer for layer in LAYERS if calls_of(layer).forward]


def with_upstream() -> list[str]:
    """The gradients that are told the gradient of their layer's result; llama_backward begins with its own loss."""
    return [layer for layer in gradients() if "grad" in parameters_of(layer)]


def with_sums() -> list[str]:
    """The gradients over a batch some of whose results are sums over it, as those of weights are."""
    found = {layer: calls_of(layer) for layer in gradients()}
    return [
        layer for layer, calls in found.items() if calls.batched and len(calls.results) > len(calls.batched_results)
    ]


def batched() -> list[str]:
    """The layers over a batch."""
    return [layer for layer in LAYERS if calls_of(layer).batched]


def drawn(
    layer: str, dtypes: Sequence[torch.dtype] | None = None, layouts: bool = False, **ranges: tuple[int, int]
) -> st.SearchStrategy[Case]:
    """Cases with the sizes of that layer; `arguments` makes the arguments."""
    return cases(calls_of(layer).sizes, dtypes, layouts, **ranges)


def arguments(layer: str, case: Case) -> Arguments:
    """Typical arguments of that layer, made from the case, as far as the layer under test claims them."""
    args, kwargs = calls_of(layer).arguments(case)
    if kwargs.get("mask") is not None and not target.claims("no mask"):
        kwargs = kwargs | {"mask": None}
    if kwargs.get("causal") is False and not target.claims("causal only"):
        kwargs = kwargs | {"causal": True}
    return target.CLAIMS.trimmed(layer, args, kwargs)
