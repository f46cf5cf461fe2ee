"""One matrix product for several weights, as inference engines have it."""

import torch
import torch.nn.functional as F

from tests.peers.formulas import complex_numbers, online_softmax


def swiglu(x, w_gate, w_up, w_down):
    gate, up = F.linear(x, torch.cat((w_gate, w_up))).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, w_down)


def self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    head_dim = w_q.shape[0] // n_heads
    heads = F.linear(x, torch.cat((w_q, w_k, w_v))).unflatten(-1, (-1, head_dim)).transpose(1, 2)
    turned = complex_numbers.rope(heads[:, : n_heads + n_kv_heads], positions, frequencies)
    q, k = turned.split((n_heads, n_kv_heads), dim=1)
    out = online_softmax.attention(q, k, heads[:, n_heads + n_kv_heads :])
    return F.linear(out.transpose(1, 2).flatten(2), w_o)
