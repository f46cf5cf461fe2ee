"""The gradient of linear: two more products of matrices.

    y_o              = sum_i weight[o, i] · x_i
    grad_x_i         = sum_o grad_o · weight[o, i]                       grad · weight
    grad_weight[o,i] = sum over tokens of grad_o · x_i                   gradᵀ · x

    grad [... d_out], x [... d_in], weight [d_out d_in] -> (grad_x like x, grad_weight like weight)

A token's gradient reaches that token alone; every token has a part in the gradient of the weight, which is the sum over
all leading axes, and zero where there is no token. Sums are in at least float32.

Source: Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors", equations 6 and 7.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import wide

GRADIENTS = ("x", "weight")


@contract()
def naive(
    grad: Float[ndarray, "... d_out"], x: Float[ndarray, "... d_in"], weight: Float[ndarray, "d_out d_in"]
) -> tuple[Float[ndarray, "... d_in"], Float[ndarray, "d_out d_in"]]:
    d_out, d_in = weight.shape
    grad_x = np.empty(x.shape)
    rows = weight.tolist()  # Python's floats are the same float64, and much faster in a loop than NumPy's
    sums = [[0.0] * d_in for _ in range(d_out)]
    for token in np.ndindex(x.shape[:-1]):
        towards, features = grad[token].tolist(), x[token].tolist()
        for i in range(d_in):
            total = 0.0
            for o in range(d_out):
                total += towards[o] * rows[o][i]
            grad_x[*token, i] = total
        for o in range(d_out):
            for i in range(d_in):
                sums[o][i] += towards[o] * features[i]
    return grad_x, np.array(sums).reshape(weight.shape)


@contract()
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "... d_out"], x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> tuple[Float[Tensor, "... d_in"], Float[Tensor, "d_out d_in"]]:
    dtype = wide(grad, x, weight)
    towards, tokens = (t.to(dtype).reshape(t.shape[:-1].numel(), t.shape[-1]) for t in (grad, x))
    grad_x, grad_weight = towards @ weight.to(dtype), towards.T @ tokens
    return grad_x.view(x.shape).to(x.dtype), grad_weight.to(weight.dtype)


@contract()
@torch.no_grad()
def fused(
    grad: Float[Tensor, "... d_out"], x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> tuple[Float[Tensor, "... d_in"], Float[Tensor, "d_out d_in"]]:
    if not grad.dtype == x.dtype == weight.dtype:
        return unchecked(vectorized)(grad, x, weight)
    towards, tokens = (t.reshape(t.shape[:-1].numel(), t.shape[-1]) for t in (grad, x))
    # Autocast would leave both in half precision.
    return torch.mm(towards, weight).view(x.shape).to(x.dtype), torch.mm(towards.T, tokens).to(weight.dtype)
