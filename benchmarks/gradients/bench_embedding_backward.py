"""The gradient of embedding: it fills a table as large as the weights, however few rows are looked up."""

from benchmarks.cases import autograd, layer

bench_embedding_backward = layer(
    "embedding_backward",
    along="seq",
    sizes=(16, 128, 1024, 8192),
    others={"batch": 1, "vocab": 8192, "d_model": 512},
    moved=lambda c: (c.seq + c.vocab) * c.d_model,
    naive=128,
    peers={"autograd": autograd("embedding_backward")},
)
