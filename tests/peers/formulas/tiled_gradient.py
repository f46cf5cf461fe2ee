"""The gradient of attention in tiles, whose weights are made anew from the log-sum-exp, as in FlashAttention."""

import math

import torch

from tests.peers.formulas._shared import widened

TILE = 3


@torch.no_grad()
def attention_backward(grad, q, k, v, causal=True, mask=None):
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    groups, scale = n_heads // n_kv_heads, 1 / math.sqrt(head_dim)
    queries, toward = widened(q.detach()) * scale, widened(grad.detach())
    keys, values = (widened(t.detach()).repeat_interleave(groups, 1) for t in (k, v))
    visible = torch.ones(batch, n_heads, q_len, kv_len, dtype=torch.bool, device=q.device)
    if causal:
        visible = visible.tril(kv_len - q_len)
    if mask is not None:
        visible = visible & mask
    tiles = [slice(i, i + TILE) for i in range(0, kv_len, TILE)]
    log_sums, y = torch.full(q.shape[:-1], -torch.inf, dtype=queries.dtype, device=q.device), torch.zeros_like(queries)
    for tile in tiles:
        scores = (queries @ keys[:, :, tile].mT).masked_fill(~visible[..., tile], -torch.inf)
        new = torch.logaddexp(log_sums, scores.logsumexp(-1))
        safe = new.masked_fill(new == -torch.inf, 0)[..., None]
        y = y * torch.exp(log_sums[..., None] - safe) + torch.exp(scores - safe) @ values[:, :, tile]
        log_sums = new
    safe = log_sums.masked_fill(log_sums == -torch.inf, 0)[..., None]
    along = (toward * y).sum(-1, keepdim=True)
    grad_q, grad_k, grad_v = torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    for tile in tiles:
        scores = (queries @ keys[:, :, tile].mT).masked_fill(~visible[..., tile], -torch.inf)
        weights = torch.exp(scores - safe)
        grad_v[:, :, tile] = weights.mT @ toward
        to_scores = weights * (toward @ values[:, :, tile].mT - along)
        grad_q += to_scores @ keys[:, :, tile] * scale
        grad_k[:, :, tile] = to_scores.mT @ queries
    grad_k, grad_v = (t.view(batch, n_kv_heads, groups, kv_len, head_dim).sum(2) for t in (grad_k, grad_v))
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)
