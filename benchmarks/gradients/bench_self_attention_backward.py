"""The gradient of self-attention: the forward pass once more, and two products for each one of it."""

from benchmarks.cases import autograd, layer


def flops(c):
    # The projection by w_o is not needed again: three products forward, and two for each of the four on the way back.
    projections = 2 * c.seq * c.d_model * c.head_dim * (3 * 2 * (c.n_heads + c.n_kv_heads) - c.n_heads)
    return projections + 7 * c.n_heads * c.seq**2 * c.head_dim


bench_self_attention_backward = layer(
    "self_attention_backward",
    along="seq",
    sizes=(2, 32, 256, 1024),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "d_model": 256, "d_ff": 704},
    flops=flops,
    naive=2,
    peers={"autograd": autograd("self_attention_backward")},
)
