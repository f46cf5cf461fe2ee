"""The gradient of RoPE: the turn back.

    y[i]      = x[i] · cos(angle) - x[i+half] · sin(angle)          angle = position · frequencies[i]
    y[i+half] = x[i] · sin(angle) + x[i+half] · cos(angle)          half  = head_dim / 2

    grad_x[i]      =  grad[i] · cos(angle) + grad[i+half] · sin(angle)
    grad_x[i+half] = -grad[i] · sin(angle) + grad[i+half] · cos(angle)

    grad [batch n_heads seq head_dim], positions [seq] or [batch seq] int64, frequencies [head_dim/2] -> like grad

The gradient of a turn is its transpose, which is the turn by the opposite angle: rope with the positions negated. Norms
are kept. x itself is not needed. As in rope, the angle is computed in at least float32, and the result has the dtype of
grad.

Raises ValueError where head_dim is odd.
Source: Su et al. 2021, "RoFormer", equation 34, whose matrix is orthogonal.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import contract
from llama.layers.model import rope, wide

GRADIENTS = ("grad",)  # x is not passed


def check(grad: Tensor | ndarray, positions: Tensor | ndarray, frequencies: Tensor | ndarray) -> None:
    if grad.shape[-1] % 2:
        raise ValueError(f"rope_backward: head_dim must be even, got {grad.shape[-1]}")


@contract(check)
def naive(
    grad: Float[ndarray, "batch n_heads seq head_dim"],
    positions: Int64[ndarray, "seq"] | Int64[ndarray, "batch seq"],
    frequencies: Float[ndarray, "head_dim//2"],
) -> Float[ndarray, "batch n_heads seq head_dim"]:
    grad_x = np.empty(grad.shape)
    half = grad.shape[-1] // 2
    for b, h, t in np.ndindex(grad.shape[:-1]):
        position = positions[t] if positions.ndim == 1 else positions[b, t]
        for i in range(half):
            angle = position * frequencies[i]
            first, second = grad[b, h, t, i], grad[b, h, t, i + half]
            grad_x[b, h, t, i] = first * math.cos(angle) + second * math.sin(angle)
            grad_x[b, h, t, i + half] = -first * math.sin(angle) + second * math.cos(angle)
    return grad_x


@contract(check)
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "batch n_heads seq head_dim"],
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "head_dim//2"],
) -> Float[Tensor, "batch n_heads seq head_dim"]:
    dtype, angle = wide(grad), positions[..., None] * frequencies.to(wide(frequencies))
    # [1 seq half] or [batch 1 seq half]: every head turns alike.
    cos, sin = angle.cos().unsqueeze(-3).to(dtype), angle.sin().unsqueeze(-3).to(dtype)
    first, second = grad.to(dtype).chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, -first * sin + second * cos), dim=-1).to(grad.dtype)


@contract(check)
@torch.no_grad()
def fused(
    grad: Float[Tensor, "batch n_heads seq head_dim"],
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "head_dim//2"],
) -> Float[Tensor, "batch n_heads seq head_dim"]:
    cos, sin = rope.cos_sin(positions, frequencies, wide(grad))
    return rope.turn(grad, cos, -sin)
