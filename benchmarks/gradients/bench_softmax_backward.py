"""The gradient of softmax: two tensors are read and one is written; there is no exponential in it."""

from benchmarks.cases import autograd, layer

bench_softmax_backward = layer(
    "softmax_backward",
    along="n",
    sizes=(64, 512, 4096, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: 3 * c.seq * c.n,
    naive=64,
    peers={"autograd": autograd("softmax_backward")},
)
