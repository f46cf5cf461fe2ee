"""The whole forward pass of a small model, all logits included. bench_whole_model.py has larger ones at work."""

from benchmarks import peers
from benchmarks.cases import layer
from benchmarks.model import bench_self_attention

SIZES = (1, 16, 128, 512)
OTHERS = {
    "batch": 1,
    "n_kv_heads": 2,
    "groups": 2,
    "half": 16,
    "d_model": 128,
    "d_ff": 352,
    "vocab": 4096,
    "n_layers": 2,
}


def flops(c):
    within = bench_self_attention.flops(c) + 6 * c.seq * c.d_model * c.d_ff
    return c.n_layers * within + 2 * c.seq * c.d_model * c.vocab


bench_llama = layer(
    "llama",
    along="seq",
    sizes=SIZES,
    others=OTHERS,
    flops=flops,
    naive=1,
    peers={"transformers": peers.llama},
)
