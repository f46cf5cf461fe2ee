"""torch's own functions for weights with a scale for each run of inputs, from which its compiler makes kernels."""

import torch
import torch.ao.quantization.fx._decomposed  # which registers them
import torch.nn.functional as F

from tests.peers.formulas._shared import widened

_FUNCTIONS = torch.ops.quantized_decomposed


def quantize(weight, bits=8, group=64):
    if bits not in (8, 4):
        raise ValueError(f"quantize: bits must be 8 or 4, got {bits}")
    if group < 1 or weight.shape[1] % group:
        raise ValueError(f"quantize: group must divide d_in, got {group}")
    if not weight.isfinite().all():
        raise ValueError("quantize: weight must be finite")
    limit, wide = 2 ** (bits - 1) - 1, widened(weight)
    scales = wide.unflatten(1, (-1, group)).abs().amax(-1) / limit
    # It divides by every scale, also that of a run of zeros.
    by, zero_points = scales.masked_fill(scales == 0, 1), torch.zeros_like(scales)
    times = _times(group)
    twice = wide.repeat_interleave(times, dim=1)
    codes = _FUNCTIONS.quantize_per_channel_group(twice, by, zero_points, -limit, limit, torch.int8, times * group)
    return codes[:, ::times].contiguous(), scales.float()


def quantized_linear(x, codes, scales):
    wide, group = widened(x), codes.shape[1] // scales.shape[1]
    times = _times(group)
    twice = codes.repeat_interleave(times, dim=1)
    by = scales.to(wide.dtype)  # in whose dtype they multiply
    weight = _FUNCTIONS.dequantize_per_channel_group(
        twice, by, torch.zeros_like(by), -127, 127, torch.int8, times * group, wide.dtype
    )
    return F.linear(wide, weight[:, ::times]).to(x.dtype)


def _times(group):
    """How often each number is handed in: they refuse runs of one."""
    return 2 if group == 1 else 1
