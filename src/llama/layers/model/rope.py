"""RoPE: turn each pair of features by an angle that grows with the position.

    angle      = position · frequencies[i]
    y[i]       = x[i] · cos(angle) - x[i + head_dim/2] · sin(angle)
    y[i+half]  = x[i] · sin(angle) + x[i + head_dim/2] · cos(angle)          i = 0 .. head_dim/2 - 1

    x [batch n_heads seq head_dim], positions [seq] or [batch seq] int64, frequencies [head_dim/2] -> like x

After it, the product of a query and a key depends only on how far apart they are. The pair is
(i, i + head_dim/2), the layout of Hugging Face checkpoints; the paper and llama2.c pair (2i, 2i + 1).
The turn is anticlockwise. Every head turns alike. The angle is computed in at least float32 whatever
the dtype of x, since bfloat16 cannot count past 256. The turn itself is computed in x's dtype, or in
float32 where that is wider; the result has x's dtype.

Raises ValueError where head_dim is odd.
Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 34.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import CACHED


def check(x: Tensor | ndarray, positions: Tensor | ndarray, frequencies: Tensor | ndarray) -> None:
    if x.shape[-1] % 2:
        raise ValueError(f"rope: head_dim must be even, got {x.shape[-1]}")


@contract(check)
def naive(
    x: Float[ndarray, "batch n_heads seq head_dim"],
    positions: Int64[ndarray, "seq"] | Int64[ndarray, "batch seq"],
    frequencies: Float[ndarray, "head_dim//2"],
) -> Float[ndarray, "batch n_heads seq head_dim"]:
    y = np.empty(x.shape)
    half = x.shape[-1] // 2
    for b, h, t in np.ndindex(x.shape[:-1]):
        position = positions[t] if positions.ndim == 1 else positions[b, t]
        for i in range(half):
            angle = position * frequencies[i]
            first, second = x[b, h, t, i], x[b, h, t, i + half]
            y[b, h, t, i] = first * math.cos(angle) - second * math.sin(angle)
            y[b, h, t, i + half] = first * math.sin(angle) + second * math.cos(angle)
    return y


@contract(check)
def vectorized(
    x: Float[Tensor, "batch n_heads seq head_dim"],
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "head_dim//2"],
) -> Float[Tensor, "batch n_heads seq head_dim"]:
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = cos_sin(positions, frequencies, wide)
    first, second = x.to(wide).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


@contract(check)
def fused(
    x: Float[Tensor, "batch n_heads seq head_dim"],
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "head_dim//2"],
) -> Float[Tensor, "batch n_heads seq head_dim"]:
    if frequencies.requires_grad or torch.compiler.is_compiling():  # which makes one loop of the plain formula
        return unchecked(vectorized)(x, positions, frequencies)
    cos, sin = cos_sin(positions, frequencies, torch.promote_types(x.dtype, torch.float32))
    return _Turn.apply(x, cos, sin) if x.requires_grad and torch.is_grad_enabled() else turn(x, cos, sin)


class _Turn(torch.autograd.Function):
    """The turn, whose gradient is the turn back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Turn.apply(grad, cos, -sin), None, None


def turn(
    x: Float[Tensor, "batch n_heads seq head_dim"], cos: Float[Tensor, "..."], sin: Float[Tensor, "..."]
) -> Float[Tensor, "batch n_heads seq head_dim"]:
    """As few passes over memory as there are, which is all that it costs: each half is written where it is to stand."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    few = CACHED * x.shape[2] // x.numel() + 1 if x.is_cpu and x.numel() else x.shape[2] + 1
    for i in range(0, x.shape[2], few):  # some positions at a time, so that what is wide stays in the cache
        part = slice(i, i + few)
        wide, c, s = x[:, :, part].to(cos.dtype), cos[..., part, :], sin[..., part, :]
        turned = y[:, :, part] if y.dtype == wide.dtype else torch.empty_like(wide)
        (first, second), (turned_first, turned_second) = wide.chunk(2, dim=-1), turned.chunk(2, dim=-1)
        torch.mul(first, c, out=turned_first).addcmul_(second, s, value=-1)
        torch.mul(first, s, out=turned_second).addcmul_(second, c)
        if turned.dtype != y.dtype:
            y[:, :, part] = turned
    return y


def cos_sin(
    positions: Int64[Tensor, "*batch seq"], frequencies: Float[Tensor, "half"], dtype: torch.dtype
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """cos and sin of every angle, [1 seq half] or [batch 1 seq half]: every head turns alike."""
    angle = positions[..., None] * frequencies.to(torch.promote_types(frequencies.dtype, torch.float32))
    once = torch.compiler.is_compiling() and not angle.requires_grad
    cos, sin = _cos_sin_once(angle) if once else (angle.cos(), angle.sin())
    return cos.unsqueeze(-3).to(dtype), sin.unsqueeze(-3).to(dtype)


# Named after this module: a copy of it would take the operator away from it, and a call would end the process.
@torch.library.custom_op(f"{__name__.replace('.', '_')}::cos_sin", mutates_args=())
def _cos_sin_once(angle: Tensor) -> Tensor:
    """An operator of its own: what a compiler sees into, it writes into the loop over all heads of all sequences."""
    return torch.stack((angle.cos(), angle.sin()))


@_cos_sin_once.register_fake
def _(angle: Tensor) -> Tensor:
    return angle.new_empty(2, *angle.shape)
