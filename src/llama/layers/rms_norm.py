"""RMSNorm: divide each token's vector by its root mean square, then scale each feature.

    y_i = x_i / sqrt(mean_j(x_j²) + eps) · weight_i

    x [... d_model], weight [d_model], eps -> [... d_model]

The mean is over the last axis only: a token is normalised by itself, never by its neighbours. It is not
subtracted: that is what LayerNorm does. eps stands inside the square root. float16 and bfloat16 are
normalised in float32 and returned in their own dtype.

Raises ValueError for a negative eps and where d_model is 0.
Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4; eps as in Llama.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.layers.contract import contract


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
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)
