"""The gradient of SiLU: element by element, two reads and one write."""

from benchmarks.cases import autograd, layer

bench_silu_backward = layer(
    "silu_backward",
    along="n",
    sizes=(16, 128, 2048, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: 3 * c.seq * c.n,
    naive=128,
    peers={"autograd": autograd("silu_backward")},
)
