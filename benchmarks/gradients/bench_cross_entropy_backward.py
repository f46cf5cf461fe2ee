"""The gradient of cross-entropy: the logits are read, and as much is written."""

from benchmarks.cases import autograd, layer

bench_cross_entropy_backward = layer(
    "cross_entropy_backward",
    along="vocab",
    sizes=(64, 512, 4096, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: 2 * c.seq * c.vocab,
    naive=512,
    peers={"autograd": autograd("cross_entropy_backward")},
)
