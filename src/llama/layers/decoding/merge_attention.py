"""Merge attention: what was computed over two separate sets of keys becomes attention over both.

    m   = max(lse_a, lse_b)
    w_a = exp(lse_a - m),   w_b = exp(lse_b - m)
    y   = (w_a · y_a + w_b · y_b) / (w_a + w_b)
    lse = m + log(w_a + w_b)

    y_a [... head_dim], lse_a [...], y_b [... head_dim], lse_b [...] -> y [... head_dim], lse [...]

y_a and y_b are attention over each set, lse_a and lse_b the logarithms of the sums of the exponentials of their scores,
as `tiled_attention` returns them. Either set may be empty, with lse -inf: the result is the other one, and the y of the
empty one may hold anything. Where both are empty, y is zeros and lse -inf.

y has the dtype of y_a, lse that of lse_a. All is computed in at least float32, and in float64 where an argument is.

Source: Ye et al. 2024, "Cascade Inference"; Dao et al. 2023, "Flash-Decoding for long-context inference".
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract
from llama.layers.model import wide


def result_dtypes(y_a: Tensor, lse_a: Tensor, *_: object, **__: object) -> tuple[torch.dtype, torch.dtype]:
    """Those of y and lse."""
    return y_a.dtype, lse_a.dtype


@contract()
def naive(
    y_a: Float[ndarray, "... head_dim"],
    lse_a: Float[ndarray, "..."],
    y_b: Float[ndarray, "... head_dim"],
    lse_b: Float[ndarray, "..."],
) -> tuple[Float[ndarray, "... head_dim"], Float[ndarray, "..."]]:
    y, lse = np.zeros(y_a.shape), np.full(lse_a.shape, -math.inf)
    for row in np.ndindex(lse_a.shape):
        largest = max(lse_a[row], lse_b[row])
        if largest == -math.inf:
            continue
        weight_a, weight_b = math.exp(lse_a[row] - largest), math.exp(lse_b[row] - largest)
        for i in range(y_a.shape[-1]):
            if weight_a > 0:
                y[*row, i] += weight_a / (weight_a + weight_b) * y_a[*row, i]
            if weight_b > 0:
                y[*row, i] += weight_b / (weight_a + weight_b) * y_b[*row, i]
        lse[row] = largest + math.log(weight_a + weight_b)
    return y, lse


@contract()
def vectorized(
    y_a: Float[Tensor, "... head_dim"],
    lse_a: Float[Tensor, "..."],
    y_b: Float[Tensor, "... head_dim"],
    lse_b: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "... head_dim"], Float[Tensor, "..."]]:
    dtype = wide(y_a, lse_a, y_b, lse_b)
    both_y, both_lse = torch.stack((y_a.to(dtype), y_b.to(dtype))), torch.stack((lse_a.to(dtype), lse_b.to(dtype)))
    largest = both_lse.amax(dim=0)
    # Where both are empty the larger one is -inf; any finite number in its place leaves both weights 0.
    weights = torch.exp(both_lse - largest.masked_fill(largest == -torch.inf, 0))
    total = weights.sum(dim=0)
    both_y = both_y.masked_fill((weights == 0)[..., None], 0)
    # The larger one has the weight 1, so only a sum of nothing lies below 1.
    y = (weights[..., None] * both_y).sum(dim=0) / total.clamp(min=1)[..., None]
    return y.to(y_a.dtype), (largest + total.log()).to(lse_a.dtype)


@contract()
def fused(
    y_a: Float[Tensor, "... head_dim"],
    lse_a: Float[Tensor, "..."],
    y_b: Float[Tensor, "... head_dim"],
    lse_b: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "... head_dim"], Float[Tensor, "..."]]:
    dtype = wide(y_a, lse_a, y_b, lse_b)
    a, b = lse_a.to(dtype), lse_b.to(dtype)
    # w_a / (w_a + w_b) is the sigmoid of the difference.
    weight = torch.sigmoid(a - b)[..., None]
    empty_a, empty_b = (a == -torch.inf)[..., None], (b == -torch.inf)[..., None]
    # Mostly nothing is empty, and y need not be copied; a GPU would have to be waited for to know.
    if not a.is_cpu or (empty_a | empty_b).any():
        y_a, y_b = y_a.masked_fill(empty_a, 0), y_b.masked_fill(empty_b, 0)
        weight = weight.masked_fill(empty_a & empty_b, 0)
    y = torch.lerp(y_b.to(dtype), y_a.to(dtype), weight)
    return y.to(y_a.dtype), torch.logaddexp(a, b).to(lse_a.dtype)
