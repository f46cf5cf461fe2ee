"""The gradient of softmax: what a probability gains, the others of its row lose.

    dy_j/dx_i = y_j · ((1 if i = j else 0) - y_i)
    grad_x_i  = sum_j grad_j · dy_j/dx_i = y_i · (grad_i - sum_j grad_j · y_j)

    grad [... n], y [... n] -> grad_x [... n]

y is what softmax returned; x itself is not needed. Each row of the result sums to zero, since adding a constant to a
row of x changes nothing. Where y is 0 the gradient is 0. The result has the dtype of grad; the sum is in at least
float32.

Raises ValueError where n is 0.
Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 6.5.2 for the chain rule.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import wide

GRADIENTS = ("grad",)  # x is not passed


def check(grad: Tensor | ndarray, y: Tensor | ndarray) -> None:
    if y.shape[-1] == 0:
        raise ValueError(f"softmax_backward: needs at least one probability in a row, got shape {list(y.shape)}")


@contract(check)
def naive(grad: Float[ndarray, "... n"], y: Float[ndarray, "... n"]) -> Float[ndarray, "... n"]:
    grad_x = np.empty(y.shape)
    for row in np.ndindex(y.shape[:-1]):
        towards, probabilities = grad[row].tolist(), y[row].tolist()
        mean = 0.0
        for toward, probability in zip(towards, probabilities, strict=True):
            mean += toward * probability
        for i, (toward, probability) in enumerate(zip(towards, probabilities, strict=True)):
            grad_x[*row, i] = probability * (toward - mean)
    return grad_x


@contract(check)
@torch.no_grad()
def vectorized(grad: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    dtype = wide(grad, y)
    toward, probability = grad.to(dtype), y.to(dtype)
    mean = (toward * probability).sum(dim=-1, keepdim=True)
    return (probability * (toward - mean)).to(grad.dtype)


@contract(check)
@torch.no_grad()
def fused(grad: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    if grad.dtype != y.dtype:
        return unchecked(vectorized)(grad, y)
    return torch.ops.aten._softmax_backward_data(grad, y, -1, y.dtype)
