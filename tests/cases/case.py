"""What the layers are called with: sizes, a dtype and a seed are drawn, tensors are made from the seed.

    @given(case=cases("batch seq d_model"))
    def test_negating_x_negates_y(rms_norm, case):
        x, weight = case.normal("batch seq d_model"), case.normal("d_model")

So an example stays one short line, and shrinks. Sizes are often distinct primes: swapped axes then
cannot fit.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from llama.implementation.claims import WORDS
from tests.cases import target


@dataclass
class Case:
    """Sizes by name (as attributes), a dtype and a seed, from which tensors are made in turn.

    n_heads, head_dim and kv_len follow from n_kv_heads and groups, from half, and from q_len and more.
    """

    sizes: dict[str, int]
    dtype: torch.dtype
    seed: int
    layout: str = "contiguous"
    """One of LAYOUTS, for every tensor; `mixed` takes the next one for each."""
    positive: bool = False
    """Whether all floats are made positive, so that sums grow with the number of their terms."""
    last: ClassVar["Case | None"] = None
    _random: np.random.Generator = field(init=False)
    _layouts: "itertools.cycle[str]" = field(init=False)

    def __post_init__(self) -> None:
        given = self.sizes
        self.dtype = target.nearest(self.dtype)
        if given.get("groups", 1) > 1 and not target.claims("no grouped heads"):
            given["groups"] = 1
        if given.get("more", 0) > 0 and not target.claims("no cache"):
            given["more"] = 0
        if {"n_kv_heads", "groups"} <= given.keys():
            given["n_heads"] = given["n_kv_heads"] * given["groups"]
        if "half" in given:
            given["head_dim"] = 2 * given["half"]
        if {"q_len", "more"} <= given.keys():
            given["kv_len"] = given["q_len"] + given["more"]
        self._random = np.random.default_rng(self.seed)
        self._layouts = itertools.cycle(LAYOUTS[:-1] if self.layout == "mixed" else [self.layout])
        Case.last = self

    def __getattr__(self, name: str) -> int:
        try:
            return self.__dict__["sizes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        words = [f"{name}={size}" for name, size in self.sizes.items()]
        words += [str(self.dtype).removeprefix("torch."), f"seed={self.seed}"]
        words += ["positive"] if self.positive else []
        return " ".join(words if self.layout == "contiguous" else [*words, self.layout])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # for Hypothesis, which would print the fields

    def shape(self, axes: str | Sequence[int]) -> list[int]:
        """`"batch seq 2"` or a sequence of sizes, as numbers."""
        return (
            [self.sizes[a] if a in self.sizes else int(a) for a in axes.split()]
            if isinstance(axes, str)
            else list(axes)
        )

    def normal(self, axes: str | Sequence[int], scale: float = 1.0) -> Tensor:
        """Normally distributed, on the device, in the case's dtype and layout."""
        values = scale * self._random.standard_normal(self.shape(axes))
        return self.laid_out(target.tensor(np.abs(values) if self.positive else values, self.dtype))

    def upstream(self, axes: str | Sequence[int]) -> Tensor:
        """The gradient of a loss. Small where all is of one sign, so that float16 holds sums over very many tokens."""
        return self.normal(axes, 1 / 16 if self.positive else 1.0)

    def uniform(self, axes: str | Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform in [low, high)."""
        return self.laid_out(target.tensor(self._random.uniform(low, high, self.shape(axes)), self.dtype))

    def away_from_zero(self, axes: str | Sequence[int]) -> Tensor:
        """Magnitudes in [0.5, 1.5), either sign: for what is normalised, which magnifies roundings near zero."""
        magnitude = self._random.uniform(0.5, 1.5, self.shape(axes))
        sign = 1 if self.positive else self._random.choice([-1, 1], self.shape(axes))
        return self.laid_out(target.tensor(magnitude * sign, self.dtype))

    def integers(self, axes: str | Sequence[int], high: int) -> Tensor:
        """Integers in 0..high-1, the last of which is high - 1: among 70,000 few would be beyond 65,535 by chance."""
        values = self._random.integers(high, size=self.shape(axes))
        values.flat[-1:] = high - 1
        return self.laid_out(target.tensor(values))

    def booleans(self, axes: str | Sequence[int]) -> Tensor:
        return self.laid_out(target.tensor(self._random.random(self.shape(axes)) < 0.5))

    def permutation(self, n: int) -> Tensor:
        return target.tensor(self._random.permutation(n))

    def laid_out(self, t: Tensor) -> Tensor:
        """These values in the case's layout."""
        layout = next(self._layouts)
        laid = laid_out(t, layout)
        return laid if laid.is_contiguous() or target.claims("no strides") else laid.contiguous()


LAYOUTS = ("contiguous", "transposed", "strided", "rows apart", "offset", "expanded", "mixed")
"""How a tensor may lie in memory. All keep its values but `expanded`, in which all rows are the first one."""


def laid_out(t: Tensor, layout: str) -> Tensor:
    """A tensor of these values in that layout."""
    if t.ndim == 0 or t.numel() == 0:
        return t
    if layout == "transposed" and t.ndim >= 2:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "strided":
        return torch.stack((t, torch.zeros_like(t)), dim=-1)[..., 0]
    if layout == "rows apart":  # the last stride is 1, and between two rows there is something else
        return torch.cat((t, torch.ones_like(t)), dim=-1)[..., : t.shape[-1]]
    if layout == "offset":  # contiguous, but not from the beginning of its memory
        return torch.cat((torch.ones_like(t[:1]), t))[1:]
    if layout == "expanded":
        return t[:1].expand(t.shape)
    return t


# The smallest and the largest size of each name. n_heads is n_kv_heads times groups.
RANGES = {
    "batch": (1, 3),
    "seq": (1, 7),
    "q_len": (1, 5),
    "more": (0, 5),  # kv_len - q_len
    # The root mean square of one or two features is near zero too often, where RMSNorm magnifies every rounding.
    "d_model": (3, 11),
    "d_in": (1, 11),
    "d_out": (1, 11),
    "d_ff": (1, 11),
    "n_kv_heads": (1, 3),
    "groups": (1, 3),
    "half": (1, 5),  # head_dim / 2
    "vocab": (1, 13),
    "n": (1, 13),
    "n_layers": (1, 2),
    "count": (1, 4),
}
# One size of each name that is past the blocks in which kernels work, and no multiple of one.
LARGE = {
    "batch": 67,
    "seq": 131,
    "q_len": 67,
    "more": 131,
    "d_model": 1031,
    "d_in": 1031,
    "d_out": 1031,
    "d_ff": 1031,
    "n_kv_heads": 11,
    "groups": 11,
    "half": 131,
    "vocab": 5003,
    "n": 5003,
    "n_layers": 11,
    "count": 33,
}
ORDERS = list(itertools.permutations((2, 3, 5, 7, 11)))
LEAST = {"groups": "no grouped heads", "more": "no cache"}
"""What a test is about that asks for more than the smallest size of an axis."""
SEEDS = st.integers(0, 2**16)


def cases(
    axes: str, dtypes: Sequence[torch.dtype] | None = None, layouts: bool = False, **ranges: tuple[int, int]
) -> st.SearchStrategy[Case]:
    """Cases with these sizes; `ranges` overrides RANGES."""
    return _cases(axes, None if dtypes is None else tuple(dtypes), layouts, tuple(ranges.items()))


@functools.cache  # Hypothesis takes as long to make and to check these strategies as to draw from them
def _cases(
    axes: str, dtypes: tuple[torch.dtype, ...] | None, layouts: bool, ranges: tuple[tuple[str, tuple[int, int]], ...]
) -> st.SearchStrategy[Case]:
    limits = RANGES | dict(ranges)
    sizes = {name: st.integers(*limits[name]) for name in axes.split()}
    to_fit = [(name, *limits[name]) for name in sizes]
    booleans, orders = st.booleans(), st.sampled_from(ORDERS)
    of_layout = st.sampled_from(LAYOUTS)
    needs = [word for axis, word in LEAST.items() if axis in sizes and limits[axis][0] > RANGES[axis][0]]

    @st.composite
    def case(draw: st.DrawFn) -> Case:
        if word := next((word for word in needs if not target.claims(word)), None):
            raise target.NotClaimed(WORDS[word])
        drawn = {name: draw(size) for name, size in sizes.items()}
        if draw(booleans, label="distinct"):
            drawn |= _distinct(draw(orders), to_fit)
        dtype = draw(_one_of(target.EXACT if dtypes is None else target.claimed(dtypes) or dtypes))
        layout = draw(of_layout) if layouts else "contiguous"
        return Case(drawn, dtype, draw(SEEDS), layout)

    return case()


@functools.cache
def _one_of(dtypes: tuple[torch.dtype, ...]) -> st.SearchStrategy[torch.dtype]:
    return st.sampled_from(dtypes)


def any_dtype() -> st.SearchStrategy[torch.dtype]:
    """One of target.ALL, as it is when the test runs."""
    return st.none().flatmap(lambda _: _one_of(target.ALL))


def _distinct(primes: Sequence[int], names: list[tuple[str, int, int]]) -> dict[str, int]:
    """A prime of its own for each name that one is left for, the tightest range first."""
    left, sizes = list(primes), {}
    for name, low, high in sorted(names, key=lambda n: n[2]):
        if fitting := [p for p in left if low <= p <= high]:
            sizes[name] = fitting[0]
            left.remove(fitting[0])
    return sizes
