"""Quantize: a weight in 8 or 4 bits, with a scale for each run of inputs.

    scale   = largest |w| of the run / (2^(bits-1) - 1)          127 for 8 bits, 7 for 4
    code    = round(w / scale), half to even
    w       is about code · scale

    weight [d_out d_in], bits 8 or 4, group -> codes [d_out d_in] int8, scales [d_out d_in/group] float32

A run is `group` inputs of one output that follow each other: input i belongs to run i // group. The largest magnitude
of a run has the code 127 or 7, or its negative, and no code lies beyond. A run of zeros has scale 0 and codes 0. The
error of a weight is at most scale / 2, but for rounding. Where the scale is so small that float32 loses digits of it
or has none, codes end at 127 or 7.

Computed in float32, and in float64 where the weight is. The scales are float32; those of a float64 weight may be
float64.

Raises ValueError for other bits, where group is below 1 or does not divide d_in, and for a weight that is not finite.
Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section 2; absmax of each block.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int8
from numpy import ndarray
from torch import Tensor

from llama.contract import contract
from llama.layers.model import CACHED


def result_dtypes(*_: object, **__: object) -> tuple[torch.dtype, torch.dtype]:
    """Those of codes and scales."""
    return torch.int8, torch.float32


def check(weight: Tensor | ndarray, bits: int = 8, group: int = 64) -> None:
    if bits not in (8, 4):
        raise ValueError(f"quantize: bits must be 8 or 4, got {bits}")
    if group < 1 or weight.shape[1] % group:
        raise ValueError(f"quantize: group must divide d_in={weight.shape[1]}, got {group}")
    # NaN is not below anything, and the least and the largest of numbers with a NaN are NaN.
    if 0 not in weight.shape and not (weight.min() > -math.inf and weight.max() < math.inf):
        wrong = ~((weight > -math.inf) & (weight < math.inf))
        raise ValueError(f"quantize: weight must be finite, got {weight[wrong].reshape(-1)[0].item()}")


@contract(check)
def naive(
    weight: Float[ndarray, "d_out d_in"], bits: int = 8, group: int = 64
) -> tuple[Int8[ndarray, "d_out d_in"], Float[ndarray, "d_out n_groups"]]:
    d_out, d_in = weight.shape
    codes, scales = np.zeros((d_out, d_in), dtype=np.int8), np.zeros((d_out, d_in // group))
    for o, run in np.ndindex(scales.shape):
        inputs = range(run * group, (run + 1) * group)
        largest = max(abs(float(weight[o, i])) for i in inputs)
        scale = largest / (2 ** (bits - 1) - 1)
        scales[o, run] = scale
        for i in inputs:
            if scale > 0:
                codes[o, i] = round(float(weight[o, i]) / scale)  # Python rounds half to even
    return codes, scales


@contract(check)
def vectorized(
    weight: Float[Tensor, "d_out d_in"], bits: int = 8, group: int = 64
) -> tuple[Int8[Tensor, "d_out d_in"], Float[Tensor, "d_out n_groups"]]:
    limit, n_groups = 2 ** (bits - 1) - 1, weight.shape[1] // group
    runs = weight.to(torch.promote_types(weight.dtype, torch.float32)).unflatten(1, (n_groups, group))
    scales = runs.abs().amax(dim=-1, keepdim=True) / limit
    # The clamp is for magnitudes below 1e-36, whose scale float32 does not hold with all of its digits.
    codes = torch.where(scales > 0, runs / scales, 0).round().clamp(-limit, limit)
    return codes.flatten(1).to(torch.int8), scales[..., 0].to(torch.float32)


@contract(check)
def fused(
    weight: Float[Tensor, "d_out d_in"], bits: int = 8, group: int = 64
) -> tuple[Int8[Tensor, "d_out d_in"], Float[Tensor, "d_out n_groups"]]:
    """On a CPU some rows at a time, so that all steps but the first find them in the cache."""
    limit, (d_out, d_in) = 2 ** (bits - 1) - 1, weight.shape
    codes = torch.empty(d_out, d_in, dtype=torch.int8, device=weight.device)
    scales = torch.empty(d_out, d_in // group, dtype=torch.float32, device=weight.device)
    few = CACHED // max(1, d_in) + 1 if weight.is_cpu else d_out + 1
    for i in range(0, d_out, few):
        rows = weight[i : i + few]
        runs = rows.to(torch.promote_types(weight.dtype, torch.float32)).unflatten(1, (d_in // group, group))
        scale = runs.abs().amax(dim=-1) / limit
        scales[i : i + few] = scale
        # A run of zeros is divided by one in place of its scale.
        quotients = runs / scale.masked_fill(scale == 0, 1)[..., None]
        codes[i : i + few] = quotients.round_().clamp_(-limit, limit).flatten(1)
    return codes, scales
