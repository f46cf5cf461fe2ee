"""A decoder layer: self-attention and SwiGLU, each behind an RMSNorm."""

from benchmarks import peers
from benchmarks.cases import layer
from benchmarks.model import bench_self_attention

bench_decoder_layer = layer(
    "decoder_layer",
    along="seq",
    sizes=(1, 16, 256, 1024),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "d_model": 256, "d_ff": 704},
    flops=lambda c: bench_self_attention.flops(c) + 6 * c.seq * c.d_model * c.d_ff,
    naive=1,
    peers={"transformers": peers.decoder_layer},
)
