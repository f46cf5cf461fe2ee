"""What several peers need."""

import torch


def widened(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def visible_keys(q, k, causal, mask):
    """What each query may attend to, as [batch n_heads q_len kv_len]; by counting, without a triangle."""
    batch, n_heads, q_len, _ = q.shape
    kv_len = k.shape[2]
    visible = torch.ones(batch, n_heads, q_len, kv_len, dtype=torch.bool, device=q.device)
    if causal:
        last = torch.arange(kv_len - q_len, kv_len, device=q.device)
        visible = visible & (torch.arange(kv_len, device=q.device) <= last[:, None])
    return visible if mask is None else visible & mask


def check_ids(token_ids, weight):
    if ((token_ids < 0) | (token_ids >= weight.shape[0])).any():
        raise IndexError(f"embedding: ids must lie in 0..{weight.shape[0] - 1}")
