"""The gradient of embedding: rows are read and added up.

The table is as large as the weights, but zeros are often handed out by the system, and not written.
"""

from benchmarks.cases import autograd, layer

bench_embedding_backward = layer(
    "embedding_backward",
    along="seq",
    sizes=(16, 128, 1024, 8192),
    others={"batch": 1, "vocab": 8192, "d_model": 512},
    moved=lambda c: 2 * c.seq * c.d_model,
    naive=128,
    peers={"autograd": autograd("embedding_backward")},
)
