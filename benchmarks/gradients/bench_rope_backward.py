"""The gradient of RoPE: one read and one write of grad; the angles are the same for all heads."""

from benchmarks.cases import autograd, layer

bench_rope_backward = layer(
    "rope_backward",
    along="seq",
    sizes=(4, 64, 1024, 8192),
    others={"batch": 1, "n_kv_heads": 8, "groups": 1, "half": 32},
    moved=lambda c: 2 * c.n_heads * c.seq * c.head_dim,
    naive=64,
    peers={"autograd": autograd("rope_backward")},
)
