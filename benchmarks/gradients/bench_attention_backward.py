"""The gradient of attention: five products over all pairs of positions, of which causality needs half."""

from benchmarks.cases import autograd, layer

bench_attention_backward = layer(
    "attention_backward",
    along="q_len",
    sizes=(16, 128, 512, 2048),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "more": 0},
    flops=lambda c: 5 * c.n_heads * c.q_len**2 * c.head_dim,
    naive=16,
    peers={"autograd": autograd("attention_backward")},
)
