"""Quantized linear: linear with a weight that is held in codes of few bits and a scale for each run of inputs.

    weight[o, i] = codes[o, i] · scales[o, i // group]          group = d_in / n_groups
    y_o          = sum_i weight[o, i] · x_i

    x [... d_in], codes [d_out d_in] int8, scales [d_out n_groups] float32 -> [... d_out]

What `quantize` returns is what comes in. The result has the dtype of x; the sum is in at least float32, and in float64
where x is.

Raises ValueError where n_groups does not divide d_in, and where the sizes of x, codes and scales do not fit.
Source: Dettmers et al. 2022, "LLM.int8()", section 2; here only the weights are quantised.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from numpy import ndarray
from torch import Tensor

from llama.contract import contract

CACHED = 2**20
"""Elements of a weight that are made at a time (4 MB): fewer cost more calls, more would not stay in the cache."""


def check(x: Tensor | ndarray, codes: Tensor | ndarray, scales: Tensor | ndarray) -> None:
    d_in, n_groups = codes.shape[1], scales.shape[1]
    if d_in and (n_groups == 0 or d_in % n_groups):
        raise ValueError(f"quantized_linear: n_groups must divide d_in={d_in}, got {n_groups}")


@contract(check)
def naive(
    x: Float[ndarray, "... d_in"], codes: Int8[ndarray, "d_out d_in"], scales: Float[ndarray, "d_out n_groups"]
) -> Float[ndarray, "... d_out"]:
    y = np.zeros((*x.shape[:-1], len(codes)))
    rows, of_runs = codes.tolist(), scales.tolist()
    for token in np.ndindex(x.shape[:-1]):
        features = x[token].tolist()
        for o, row in enumerate(rows):
            total = 0.0
            for i, (code, feature) in enumerate(zip(row, features, strict=True)):
                total += code * of_runs[o][i * len(of_runs[o]) // len(row)] * feature
            y[*token, o] = total
    return y


@contract(check)
def vectorized(
    x: Float[Tensor, "... d_in"], codes: Int8[Tensor, "d_out d_in"], scales: Float[Tensor, "d_out n_groups"]
) -> Float[Tensor, "... d_out"]:
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) @ _weight(codes, scales, wide).T).to(x.dtype)


@contract(check)
def fused(
    x: Float[Tensor, "... d_in"], codes: Int8[Tensor, "d_out d_in"], scales: Float[Tensor, "d_out n_groups"]
) -> Float[Tensor, "... d_out"]:
    """On a CPU some rows of the weight at a time, so that they are multiplied while they are in the cache."""
    wide = torch.promote_types(x.dtype, torch.float32)
    wide_x, few = x.to(wide), CACHED // max(1, codes.shape[1]) + 1
    if len(codes) <= few or not codes.is_cpu:
        return F.linear(wide_x, _weight(codes, scales, wide)).to(x.dtype)
    rows = zip(codes.split(few), scales.split(few), strict=True)
    return torch.cat([F.linear(wide_x, _weight(*some, wide)) for some in rows], dim=-1).to(x.dtype)


def _weight(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """In memory of its own, in which it is multiplied by the scales: one tensor less to make."""
    weight = codes.to(dtype)
    if weight.numel():
        weight.unflatten(1, (scales.shape[1], -1)).mul_(scales.to(dtype)[..., None])
    return weight
