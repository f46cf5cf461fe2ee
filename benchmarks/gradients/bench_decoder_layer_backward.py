"""The gradient of a decoder layer: its forward pass once more, and two products for each one of it."""

from benchmarks.cases import autograd, layer
from benchmarks.gradients import bench_self_attention_backward


def flops(c):
    # The product by w_o makes h, and of the feed-forward block the last product is not needed again.
    again = 2 * c.seq * c.d_model * (c.n_heads * c.head_dim + 2 * c.d_ff)
    return bench_self_attention_backward.flops(c) + again + 12 * c.seq * c.d_model * c.d_ff


bench_decoder_layer_backward = layer(
    "decoder_layer_backward",
    along="seq",
    sizes=(1, 16, 256, 1024),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "d_model": 256, "d_ff": 704},
    flops=flops,
    naive=1,
    peers={"autograd": autograd("decoder_layer_backward")},
)
