"""The gradient of RMSNorm: through the features themselves, and through their root mean square.

    r      = 1 / sqrt(mean_j(x_j²) + eps)          y_i = x_i · r · weight_i          dr/dx_i = -r³ · x_i / d_model
    grad_x_i      = r · grad_i · weight_i + dr/dx_i · sum_j grad_j · weight_j · x_j
                  = r · (grad_i · weight_i - x_i · r² · mean_j(grad_j · weight_j · x_j))
    grad_weight_i = sum over tokens of grad_i · x_i · r

    grad [... d_model], x [... d_model], weight [d_model], eps -> (grad_x like x, grad_weight like weight)

The second term of grad_x is the statistic's: making x longer does not make y longer, so for weight 1 and eps 0 the
gradient is orthogonal to x. eps is the one of the forward pass. Everything is computed in at least float32.

Raises ValueError for a negative eps and where d_model is 0.
Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equations 6 and 7.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import wide

GRADIENTS = ("x", "weight")
FEW = 4096
"""Tokens at a time: the kernel adds them up one after the other, and a sum of sums is more exact."""


def check(grad: Tensor | ndarray, x: Tensor | ndarray, weight: Tensor | ndarray, eps: float = 1e-5) -> None:
    if not eps >= 0:
        raise ValueError(f"rms_norm_backward: eps must not be negative, got {eps}")
    if x.shape[-1] == 0:
        raise ValueError(f"rms_norm_backward: d_model must be at least 1, got shape {list(x.shape)}")


@contract(check)
def naive(
    grad: Float[ndarray, "... d_model"],
    x: Float[ndarray, "... d_model"],
    weight: Float[ndarray, "d_model"],
    eps: float = 1e-5,
) -> tuple[Float[ndarray, "... d_model"], Float[ndarray, "d_model"]]:
    grad_x, grad_weight = np.empty(x.shape), np.zeros(weight.shape)
    d_model = len(weight)
    for token in np.ndindex(x.shape[:-1]):
        features, towards = x[token].tolist(), grad[token].tolist()
        total, along = 0.0, 0.0
        for i in range(d_model):
            total += features[i] * features[i]
            along += towards[i] * weight[i] * features[i]
        r = 1 / math.sqrt(total / d_model + eps)
        for i in range(d_model):
            grad_x[*token, i] = r * (towards[i] * weight[i] - features[i] * r * r * along / d_model)
            grad_weight[i] += towards[i] * features[i] * r
    return grad_x, grad_weight


@contract(check)
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "... d_model"],
    x: Float[Tensor, "... d_model"],
    weight: Float[Tensor, "d_model"],
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "... d_model"], Float[Tensor, "d_model"]]:
    dtype = wide(grad, x, weight)
    towards, features = grad.to(dtype), x.to(dtype)
    r = torch.rsqrt(features.square().mean(dim=-1, keepdim=True) + eps)
    scaled = towards * weight.to(dtype)
    along = (scaled * features).mean(dim=-1, keepdim=True)
    grad_x = r * (scaled - features * r.square() * along)
    grad_weight = (towards * features * r).reshape(-1, x.shape[-1]).sum(dim=0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


@contract(check)
@torch.no_grad()
def fused(
    grad: Float[Tensor, "... d_model"],
    x: Float[Tensor, "... d_model"],
    weight: Float[Tensor, "d_model"],
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "... d_model"], Float[Tensor, "d_model"]]:
    if torch.is_autocast_enabled(x.device.type):  # which would round grad · weight
        return unchecked(vectorized)(grad, x, weight, eps)
    dtype, d_model = wide(grad, x, weight), x.shape[-1]
    w, grad_weight = weight.to(dtype), torch.zeros(d_model, dtype=dtype, device=x.device)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    towards, tokens, result = (t.reshape(-1, d_model) for t in (grad, x, grad_x))
    for i in range(0, len(tokens), FEW):
        toward, token = towards[i : i + FEW].to(dtype), tokens[i : i + FEW].to(dtype)
        norm = torch.linalg.vector_norm(token, dim=-1, keepdim=True)
        r = norm.mul_(norm).div_(d_model).add_(eps).rsqrt_()
        # LayerNorm's gradient at mean 0 is RMSNorm's, less the mean of grad · weight, which is put back.
        part, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            toward, token, [d_model], torch.zeros_like(r), r, w, None, [True, True, False]
        )
        torch.add(part, torch.mv(toward, w).div_(d_model)[:, None] * r, out=result[i : i + FEW])
        grad_weight += of_weight
    return grad_x, grad_weight.to(weight.dtype)
