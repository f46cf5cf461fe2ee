"""Attention: two products over all pairs of positions, of which causality needs half."""

from types import SimpleNamespace

import torch.nn.functional as F

from benchmarks.cases import layer


def torch_nn(q, k, v, causal, mask):
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def transformers(q, k, v, causal, mask):
    """What its models call unless they are told otherwise; the heads come out behind the positions."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], is_causal=True)
    return lambda: sdpa_attention_forward(module, q, k, v, None, scaling=q.shape[-1] ** -0.5)[0]


bench_attention = layer(
    "attention",
    along="q_len",
    sizes=(16, 128, 512, 2048),
    others={"batch": 1, "n_kv_heads": 2, "groups": 2, "half": 32, "more": 0},
    flops=lambda c: 2 * c.n_heads * c.q_len**2 * c.head_dim,
    naive=16,
    peers={"torch.nn": torch_nn, "transformers": transformers},
)
