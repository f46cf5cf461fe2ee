"""Self-attention: four matrix products per token, and attention between them."""

from benchmarks import peers
from benchmarks.cases import layer


def flops(c):
    projections = 2 * c.seq * c.d_model * c.head_dim * 2 * (c.n_heads + c.n_kv_heads)
    return projections + 2 * c.n_heads * c.seq**2 * c.head_dim


bench_self_attention = layer(
    "self_attention",
    along="seq",
    sizes=(2, 32, 256, 1024),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "d_model": 256, "d_ff": 704},
    flops=flops,
    naive=2,
    peers={"transformers": peers.self_attention},
)
