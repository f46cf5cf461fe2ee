"""Quantising a weight: it is read once, and a byte is written for each number.

torch has a function for the codes; the scales are sought as plainly as it goes.
"""

from benchmarks.cases import layer


def arguments(case):
    """A weight of d_out outputs, in runs of 64."""
    return (case.normal("d_out d_in"),), {"bits": 8, "group": 64}


def torch_by_group(weight, bits, group):
    import torch.ao.quantization.fx._decomposed  # which registers the function

    make, limit = torch.ops.quantized_decomposed.quantize_per_channel_group, 2 ** (bits - 1) - 1

    def run():
        wide = weight.float()
        scales = wide.unflatten(1, (-1, group)).abs().amax(-1) / limit
        return make(wide, scales, torch.zeros_like(scales), -limit, limit, torch.int8, group), scales

    return run


bench_quantize = layer(
    "quantize",
    along="d_out",
    sizes=(16, 256, 4096),
    others={"d_in": 2048},
    moved=lambda c: c.d_out * c.d_in * (1 + 1 / c.dtype.itemsize),
    naive=16,
    arguments=arguments,
    peers={"torch": torch_by_group},
)
