"""What the layers are called with: sizes, a dtype and a seed are drawn, tensors are made from the seed.

    @given(case=cases("batch seq d_model"))
    def test_negating_x_negates_y(rms_norm, case):
        x, weight = case.normal("batch seq d_model"), case.normal("d_model")

So an example stays one short line, and shrinks. Sizes are often distinct primes: swapped axes then
cannot fit. `arguments` are typical arguments of every layer, for the tests that hold for all of them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from llama.config import LlamaConfig
from llama.layers.decoder_layer import NAMES
from llama.weights import shapes

DEVICE = torch.device("cpu")
EXACT: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
ALL: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def use_device(device: torch.device) -> None:
    """Make all tensors on `device` from here on. Apple's GPUs have no float64."""
    global DEVICE, EXACT, ALL
    DEVICE = device
    if device.type == "mps":
        EXACT, ALL = EXACT[1:], ALL[1:]


def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these values on the device under test; numbers with a point are float32."""
    return torch.as_tensor(values, dtype=dtype).to(DEVICE)


@dataclass
class Case:
    """Sizes by name (as attributes), a dtype and a seed, from which tensors are made in turn.

    n_heads, head_dim and kv_len follow from n_kv_heads and groups, from half, and from q_len and more.
    """

    sizes: dict[str, int]
    dtype: torch.dtype
    seed: int
    layout: str = "contiguous"
    last: ClassVar["Case | None"] = None
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        given = self.sizes
        if {"n_kv_heads", "groups"} <= given.keys():
            given["n_heads"] = given["n_kv_heads"] * given["groups"]
        if "half" in given:
            given["head_dim"] = 2 * given["half"]
        if {"q_len", "more"} <= given.keys():
            given["kv_len"] = given["q_len"] + given["more"]
        self._random = np.random.default_rng(self.seed)
        Case.last = self

    def __getattr__(self, name: str) -> int:
        try:
            return self.__dict__["sizes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        words = [f"{name}={size}" for name, size in self.sizes.items()]
        words += [str(self.dtype).removeprefix("torch."), f"seed={self.seed}"]
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
        return self._laid_out(tensor(scale * self._random.standard_normal(self.shape(axes)), self.dtype))

    def uniform(self, axes: str | Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform in [low, high)."""
        return self._laid_out(tensor(self._random.uniform(low, high, self.shape(axes)), self.dtype))

    def away_from_zero(self, axes: str | Sequence[int]) -> Tensor:
        """Magnitudes in [0.5, 1.5), either sign: for what is normalised, which magnifies roundings near zero."""
        magnitude = self._random.uniform(0.5, 1.5, self.shape(axes))
        sign = self._random.choice([-1, 1], self.shape(axes))
        return self._laid_out(tensor(magnitude * sign, self.dtype))

    def integers(self, axes: str | Sequence[int], high: int) -> Tensor:
        """Integers in 0..high-1."""
        return self._laid_out(tensor(self._random.integers(high, size=self.shape(axes))))

    def booleans(self, axes: str | Sequence[int]) -> Tensor:
        return self._laid_out(tensor(self._random.random(self.shape(axes)) < 0.5))

    def permutation(self, n: int) -> Tensor:
        return tensor(self._random.permutation(n))

    def _laid_out(self, t: Tensor) -> Tensor:
        """The same values in another layout of memory."""
        if self.layout == "transposed" and t.ndim >= 2:
            return t.transpose(-1, -2).contiguous().transpose(-1, -2)
        if self.layout == "strided" and t.ndim >= 1:
            return torch.stack((t, torch.zeros_like(t)), dim=-1)[..., 0]
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
SEEDS = st.integers(0, 2**16)


@st.composite
def cases(
    draw: st.DrawFn,
    axes: str,
    dtypes: Sequence[torch.dtype] | None = None,
    layouts: bool = False,
    **ranges: tuple[int, int],
) -> Case:
    """Cases with these sizes; `ranges` overrides RANGES."""
    names, ranges = axes.split(), RANGES | ranges
    sizes = {name: draw(st.integers(*ranges[name])) for name in names}
    if draw(st.booleans(), label="distinct"):
        sizes |= _distinct(draw(st.sampled_from(ORDERS)), [(name, *ranges[name]) for name in names])
    dtype = draw(st.sampled_from(EXACT if dtypes is None else dtypes))
    layout = draw(st.sampled_from(["contiguous", "transposed", "strided"])) if layouts else "contiguous"
    return Case(sizes, dtype, draw(SEEDS), layout)


def _distinct(primes: Sequence[int], names: list[tuple[str, int, int]]) -> dict[str, int]:
    """A prime of its own for each name that one is left for, the tightest range first."""
    left, sizes = list(primes), {}
    for name, low, high in sorted(names, key=lambda n: n[2]):
        if fitting := [p for p in left if low <= p <= high]:
            sizes[name] = fitting[0]
            left.remove(fitting[0])
    return sizes


def positions(case: Case, axes: str, high: int = 50) -> Tensor:
    """Any positions: unordered, repeated."""
    return case.integers(axes, high)


def frequencies(case: Case) -> Tensor:
    """Frequencies as RoPE has them, but without using any implementation of them."""
    exponents = np.arange(case.half) / case.half
    return tensor(10000.0**-exponents, torch.float32 if DEVICE.type == "mps" else torch.float64)


def layer_weights(case: Case) -> dict[str, Tensor]:
    """The nine tensors of a decoder layer; norm weights are not ones."""
    q_rows, kv_rows = case.n_heads * case.head_dim, case.n_kv_heads * case.head_dim
    of = {
        "self_attn.q_proj.weight": (q_rows, case.d_model),
        "self_attn.k_proj.weight": (kv_rows, case.d_model),
        "self_attn.v_proj.weight": (kv_rows, case.d_model),
        "self_attn.o_proj.weight": (case.d_model, q_rows),
        "mlp.gate_proj.weight": (case.d_ff, case.d_model),
        "mlp.up_proj.weight": (case.d_ff, case.d_model),
        "mlp.down_proj.weight": (case.d_model, case.d_ff),
    }
    return _gentle({name: weight(case, of.get(name, (case.d_model,))) for name in NAMES})


def _gentle(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With residual branches that are small beside what they are added to, as in a real initialisation.

    Branches as large as the stream could cancel it, and RMSNorm would magnify every rounding of what is left.
    """
    ends = ("o_proj.weight", "down_proj.weight")
    return {name: w / 4 if name.endswith(ends) else w for name, w in weights.items()}


def weight(case: Case, shape: Sequence[int]) -> Tensor:
    """A matrix that keeps sums near 1 whatever the sizes, or the weights of a norm, which are not ones."""
    return case.normal(shape, 1 / math.sqrt(shape[-1])) if len(shape) > 1 else case.uniform(shape, 0.5, 1.5)


def config(case: Case, **more: Any) -> LlamaConfig:
    """A small model with the sizes of the case."""
    return LlamaConfig(
        vocab_size=case.vocab,
        hidden_size=case.d_model,
        intermediate_size=case.d_ff,
        num_hidden_layers=case.n_layers,
        num_attention_heads=case.n_heads,
        num_key_value_heads=case.n_kv_heads,
        head_dim=case.head_dim,
        **more,
    )


def model_weights(case: Case, of: LlamaConfig) -> dict[str, Tensor]:
    """A state dict for that config, with weights large enough that every one matters."""
    weights = _gentle({name: weight(case, shape) for name, shape in shapes(of).items()})
    return weights | {"model.embed_tokens.weight": case.away_from_zero("vocab d_model")}


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _self_attention(c: Case) -> Arguments:
    w = layer_weights(c)
    projections = [w[f"self_attn.{name}_proj.weight"] for name in "qkvo"]
    x = c.normal("batch seq d_model")
    return (x, *projections, c.n_heads, c.n_kv_heads, positions(c, "seq"), frequencies(c)), {}


def _decoder_layer(c: Case) -> Arguments:
    x, eps = c.away_from_zero("batch seq d_model"), 10.0 ** -(c.seed % 5)
    return (x, layer_weights(c), c.n_heads, c.n_kv_heads, positions(c, "seq"), frequencies(c)), {"eps": eps}


def _llama(c: Case) -> Arguments:
    of = config(c, tie_word_embeddings=bool(c.seed % 2))
    return (c.integers("batch seq", c.vocab), model_weights(c, of), of), {}


# All kinds of axes that broadcast to [batch n_heads q_len kv_len].
MASKS = (
    None,
    "kv_len",
    "q_len kv_len",
    "n_heads q_len kv_len",
    "batch 1 1 kv_len",
    "batch 1 q_len kv_len",
    "batch n_heads q_len kv_len",
)


def _attention(c: Case) -> Arguments:
    q = c.normal("batch n_heads q_len head_dim")
    k, v = c.normal("batch n_kv_heads kv_len head_dim"), c.normal("batch n_kv_heads kv_len head_dim")
    mask_axes = MASKS[c.seed % len(MASKS)]
    return (q, k, v), {"causal": c.seed % 2 == 0, "mask": c.booleans(mask_axes) if mask_axes else None}


def _adamw(c: Case) -> Arguments:
    param, grad, exp_avg = (c.normal("batch n") for _ in range(3))
    # A second moment is never below the square of the first.
    state = (param, grad, exp_avg, exp_avg.square() + c.uniform("batch n"), 1 + c.seed % 7, 0.1 / (1 + c.seed % 3))
    return state, {"betas": (0.8, 0.9), "eps": 10.0 ** -(c.seed % 4), "weight_decay": (c.seed % 3) / 10}


def _filter_logits(c: Case) -> Arguments:
    # Multiples of 1/4, so that a tie is a tie in every dtype and no probability lies near a limit by rounding.
    logits = c.integers("batch seq n", 17).to(c.dtype) / 4
    temperature = [1.0, 0.5, 2.0, 0.0][c.seed % 4]
    top_k = [None, 1, 3, 50][c.seed // 4 % 4]
    return (logits,), {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": [None, 0.61803][c.seed // 16 % 2],
        "min_p": [None, 0.1][c.seed // 32 % 2],
    }


def _plain(make: Callable[[Case], tuple[Any, ...]]) -> Callable[[Case], Arguments]:
    return lambda case: (make(case), {})


# For each layer: the sizes to draw, and arguments made from a case.
ARGUMENTS: dict[str, tuple[str, Callable[[Case], Arguments]]] = {
    "softmax": ("batch seq n", _plain(lambda c: (c.normal("batch seq n", 3.0),))),
    "cross_entropy": (
        "batch seq vocab",
        _plain(lambda c: (c.normal("batch seq vocab", 3.0), c.integers("batch seq", c.vocab))),
    ),
    "embedding": (
        "batch seq vocab d_model",
        _plain(lambda c: (c.integers("batch seq", c.vocab), c.normal("vocab d_model"))),
    ),
    "linear": ("batch seq d_in d_out", _plain(lambda c: (c.normal("batch seq d_in"), c.normal("d_out d_in")))),
    "rms_norm": (
        "batch seq d_model",
        _plain(lambda c: (c.away_from_zero("batch seq d_model"), c.normal("d_model"), 10.0 ** -(c.seed % 6))),
    ),
    "silu": ("batch seq n", _plain(lambda c: (c.normal("batch seq n", 3.0),))),
    "swiglu": (
        "batch seq d_model d_ff",
        _plain(
            lambda c: (
                c.normal("batch seq d_model"),
                *(weight(c, c.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff")),
            )
        ),
    ),
    "rope_frequencies": ("half", _plain(lambda c: (c.head_dim, 10.0 ** (1 + c.seed % 6)))),
    "llama3_frequencies": ("half", _plain(lambda c: (10 ** c.uniform("half", -4, 0), 4.0, 0.5, 3.0, 2048))),
    "rope": (
        "batch n_kv_heads groups seq half",
        _plain(
            lambda c: (
                c.normal("batch n_heads seq head_dim"),
                positions(c, "batch seq" if c.seed % 2 else "seq"),
                frequencies(c),
            )
        ),
    ),
    "attention": ("batch n_kv_heads groups q_len more half", _attention),
    "self_attention": ("batch seq n_kv_heads groups half d_model d_ff", _self_attention),
    "decoder_layer": ("batch seq n_kv_heads groups half d_model d_ff", _decoder_layer),
    "llama": ("batch seq n_kv_heads groups half d_model d_ff vocab n_layers", _llama),
    "adamw": ("batch n", _adamw),
    "clip_grad_norm": (
        "batch seq n count",
        _plain(lambda c: ([c.normal(axes) for axes in ("batch n", "n", "seq batch", "", *["n"] * 29)[: c.count]], 1.0)),
    ),
    "cosine_schedule": ("n seq", _plain(lambda c: (c.seed % 30, 0.5, c.seq, c.seq + c.n, 0.125))),
    "filter_logits": ("batch seq n", _filter_logits),
    "sample": (
        "batch seq n",
        _plain(lambda c: (c.normal("batch seq n"), c.uniform("batch seq", 0.0, 0.99))),
    ),
}

# Layers that have a gradient, and the arguments that it is taken for. The optimizer, its clipping and
# sampling stand behind the gradients; frequencies are constants.
DIFFERENTIABLE: dict[str, tuple[int, ...]] = {
    "softmax": (0,),
    "cross_entropy": (0,),
    "embedding": (1,),
    "linear": (0, 1),
    "rms_norm": (0, 1),
    "silu": (0,),
    "swiglu": (0, 1, 2, 3),
    "rope": (0,),
    "attention": (0, 1, 2),
    "self_attention": (0, 1, 2, 3, 4),
    "decoder_layer": (0, 1),
    "llama": (1,),
}

# Layers over a batch, and the arguments that have its axis.
BATCHED: dict[str, tuple[int | str, ...]] = {
    "softmax": (0,),
    "embedding": (0,),
    "linear": (0,),
    "rms_norm": (0,),
    "silu": (0,),
    "swiglu": (0,),
    "rope": (0, 1),
    "attention": (0, 1, 2, "mask"),
    "self_attention": (0,),
    "decoder_layer": (0,),
    "llama": (0,),
    "filter_logits": (0,),
    "sample": (0, 1),
}


def dtypes(layer: str) -> Sequence[torch.dtype]:
    """Those in which a layer's values can be held to the tolerance of the dtype.

    A rounding of every layer beneath adds up in a composed one: in half precision its parts are compared.
    """
    return EXACT if layer in ("decoder_layer", "llama") else ALL


@st.composite
def calls(
    draw: st.DrawFn,
    layer: str,
    dtypes: Sequence[torch.dtype] | None = None,
    layouts: bool = False,
    **ranges: tuple[int, int],
) -> Case:
    """A case with the sizes of that layer; `arguments` makes the arguments."""
    return draw(cases(ARGUMENTS[layer][0], dtypes, layouts, **ranges))


def arguments(layer: str, case: Case) -> Arguments:
    """Typical arguments of that layer, made from the case."""
    return ARGUMENTS[layer][1](case)
