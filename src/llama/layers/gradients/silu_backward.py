"""The gradient of SiLU.

    s      = sigmoid(x)          y = x · s          ds/dx = s · (1 - s)
    grad_x = grad · (s + x · s · (1 - s)) = grad · s · (1 + x · (1 - s))

    grad [...], x [...] -> grad_x like x

For large x it is grad, for very negative x zero; where x is -1.2785, the minimum of y, it is zero too. No exponential
overflows, and nothing is NaN, however large x is. It is computed in at least float32.

Source: Elfwing, Uchibe and Doya 2018, "Sigmoid-weighted linear units", equation 5.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import wide

GRADIENTS = ("x",)


@contract()
def naive(grad: Float[ndarray, "..."], x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    grad_x = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        # Of the two equal forms, the one whose exponent is not positive.
        sigmoid = 1 / (1 + math.exp(-x[i])) if x[i] >= 0 else math.exp(x[i]) / (1 + math.exp(x[i]))
        grad_x[i] = grad[i] * sigmoid * (1 + x[i] * (1 - sigmoid))
    return grad_x


@contract()
@torch.no_grad()
def vectorized(grad: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    dtype = wide(grad, x)
    s = torch.sigmoid(x.to(dtype))
    return (grad.to(dtype) * s * (1 + x.to(dtype) * (1 - s))).to(x.dtype)


@contract()
@torch.no_grad()
def fused(grad: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    if grad.dtype != x.dtype:
        return unchecked(vectorized)(grad, x)
    return torch.ops.aten.silu_backward(grad, x)
