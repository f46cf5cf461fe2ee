"""RMSNorm: divide each token's vector by its root mean square, then scale each feature.

    y_i = x_i / sqrt(mean_j(x_j²) + eps) · weight_i

    x [... d_model], weight [d_model], eps -> [... d_model]

The mean is over the last axis only: a token is normalised by itself, never by its neighbours. It is not
subtracted: that is what LayerNorm does. eps stands inside the square root. float16 and bfloat16 are
normalised in float32 and returned in their own dtype, also where weight has a wider one.

Raises ValueError for a negative eps and where d_model is 0.
Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4; eps as in Llama.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from llama.contract import contract, unchecked

FEW = 2**13
"""Elements up to which torch's own gradient is the faster one."""


def check(x: Tensor | ndarray, weight: Tensor | ndarray, eps: float = 1e-5) -> None:
    if not eps >= 0:
        raise ValueError(f"rms_norm: eps must not be negative, got {eps}")
    if x.shape[-1] == 0:
        raise ValueError(f"rms_norm: d_model must be at least 1, got shape {list(x.shape)}")


@contract(check)
def naive(
    x: Float[ndarray, "... d_model"], weight: Float[ndarray, "d_model"], eps: float = 1e-5
) -> Float[ndarray, "... d_model"]:
    y = np.empty(x.shape)
    for token in np.ndindex(x.shape[:-1]):
        total = 0.0
        for value in x[token]:
            total += value * value
        root = math.sqrt(total / len(x[token]) + eps)
        for i, value in enumerate(x[token]):
            y[*token, i] = value / root * weight[i]
    return y


@contract(check)
def vectorized(
    x: Float[Tensor, "... d_model"], weight: Float[Tensor, "d_model"], eps: float = 1e-5
) -> Float[Tensor, "... d_model"]:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean_square = wide.square().mean(dim=-1, keepdim=True)
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


@contract(check)
def fused(
    x: Float[Tensor, "... d_model"], weight: Float[Tensor, "d_model"], eps: float = 1e-5
) -> Float[Tensor, "... d_model"]:
    if torch.compiler.is_compiling():  # it makes one loop of the plain formula
        return unchecked(vectorized)(x, weight, eps)
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if learning and x.is_cpu and (x.numel() > FEW or weight.dtype != x.dtype):
        return _WithGradient.apply(x, weight, eps)
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


class _WithGradient(torch.autograd.Function):
    """On a CPU torch takes RMSNorm's gradient operation by operation, but has one kernel for LayerNorm's.

    LayerNorm's gradient at mean 0 is RMSNorm's, less the mean of grad · weight, which is put back here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        reciprocal = (norm.square_() / x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, reciprocal)
        return (wide * reciprocal).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, reciprocal = ctx.saved_tensors
        wide, d_model = reciprocal.dtype, x.shape[-1]
        grad, w = grad.to(wide), weight.to(wide)
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x.to(wide), [d_model], torch.zeros_like(reciprocal), reciprocal, w, None, [True, True, False]
        )
        grad_x += (grad @ w).div_(d_model)[..., None] * reciprocal
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
