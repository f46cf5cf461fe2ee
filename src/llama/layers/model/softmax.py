"""Softmax: turn any scores into probabilities, over the last axis.

    y_i = exp(x_i - max(x)) / sum_j exp(x_j - max(x))

    x [... n] -> [... n]

The maximum is each row's own: subtracting it changes nothing (it cancels) and keeps every exponent at
or below zero, so no finite x overflows. An entry of -inf gets exactly 0; a row of nothing but -inf has
no distribution and is NaN. float16 and bfloat16 are summed in float32 and returned in their own dtype.

Raises ValueError where n is 0.
Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), equation 4.1 and the text below it.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(x: Tensor | ndarray) -> None:
    if x.shape[-1] == 0:
        raise ValueError(f"softmax: needs at least one score in a row, got shape {list(x.shape)}")


@contract(check)
def naive(x: Float[ndarray, "... n"]) -> Float[ndarray, "... n"]:
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        scores = x[row].tolist()
        largest = max(scores)
        powers = [math.exp(score - largest) for score in scores]
        total = sum(powers)
        for i, power in enumerate(powers):
            y[*row, i] = power / total
    return y


@contract(check)
def vectorized(x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # The maximum cancels, so no gradient has to pass through it.
    powers = torch.exp(wide - wide.amax(dim=-1, keepdim=True).detach())
    return (powers / powers.sum(dim=-1, keepdim=True)).to(x.dtype)


@contract(check)
def fused(x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    return torch.softmax(x, dim=-1)
