"""Attention in tiles: the work of attention, in a fraction of its memory. torch's own keeps no lse."""

import torch.nn.functional as F

from benchmarks.cases import layer
from tests.cases.calls import Arguments, calls_of
from tests.cases.case import Case


def causal(case: Case) -> Arguments:
    """As a model calls it: causal, without a mask, in tiles of the default size."""
    args, _ = calls_of("tiled_attention").arguments(case)
    return args, {}


def torch_nn(q, k, v):
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


bench_tiled_attention = layer(
    "tiled_attention",
    along="q_len",
    sizes=(16, 128, 512, 2048),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "more": 0},
    flops=lambda c: 2 * c.n_heads * c.q_len**2 * c.head_dim,
    naive=16,
    arguments=causal,
    peers={"torch.nn": torch_nn},
)
