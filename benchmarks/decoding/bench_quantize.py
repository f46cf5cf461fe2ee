"""Quantising a weight: it is read once, and a byte is written for each number. torch quantises no runs."""

from benchmarks.cases import layer


def arguments(case):
    """A weight of d_out outputs, in runs of 64."""
    return (case.normal("d_out d_in"),), {"bits": 8, "group": 64}


bench_quantize = layer(
    "quantize",
    along="d_out",
    sizes=(16, 256, 4096),
    others={"d_in": 2048},
    moved=lambda c: c.d_out * c.d_in * (1 + 1 / c.dtype.itemsize),
    naive=16,
    arguments=arguments,
)
