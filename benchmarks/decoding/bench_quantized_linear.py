"""A linear map whose weight is held in 8 bits, for one token, as a text is written: what is read is the limit.

torch makes the weight of codes and scales in a function of its own, and multiplies by it.
"""

import torch
import torch.nn.functional as F

from benchmarks.cases import layer
from tests.cases.calls import positional


def arguments(case):
    """One token, and runs of 64."""
    x = case.normal([1, 1, case.d_in])
    codes = (case.integers("d_out d_in", 255) - 127).to(torch.int8)
    return positional(x, codes, case.uniform([case.d_out, case.d_in // 64], 0.0, 1 / 64).to(torch.float32))


def torch_dequantized(x, codes, scales):
    import torch.ao.quantization.fx._decomposed  # which registers the function

    make = torch.ops.quantized_decomposed.dequantize_per_channel_group
    group, zero_points = codes.shape[1] // scales.shape[1], torch.zeros_like(scales)
    return lambda: F.linear(x, make(codes, scales, zero_points, -127, 127, torch.int8, group, x.dtype))


bench_quantized_linear = layer(
    "quantized_linear",
    along="d_out",
    sizes=(16, 256, 4096),
    others={"d_in": 2048},
    moved=lambda c: c.d_out * c.d_in / c.dtype.itemsize,
    naive=16,
    arguments=arguments,
    peers={"torch": torch_dequantized},
)
