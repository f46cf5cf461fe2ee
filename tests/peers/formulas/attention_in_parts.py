"""Attention over each tile by itself, with a softmax of its own; what was there moves towards it by its share."""

import math

import torch

from tests.peers.formulas._shared import widened


def merge_attention(y_a, lse_a, y_b, lse_b):
    """y_a less its distance from y_b times the share of b; as between the devices of Ring Attention."""
    wide = torch.promote_types(torch.promote_types(widened(y_a).dtype, y_b.dtype), lse_a.dtype)
    wide = torch.promote_types(wide, lse_b.dtype)
    y, lse = _moved(*(t.to(wide) for t in (y_a, lse_a, y_b, lse_b)))
    return y.to(y_a.dtype), lse.to(lse_a.dtype)


def tiled_attention(q, k, v, causal=True, mask=None, tile=64):
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    if tile < 1:
        raise ValueError(f"tiled_attention: tile must be at least 1, got {tile}")
    grouped = widened(q).unflatten(1, (n_kv_heads, -1))
    y = torch.zeros_like(grouped)
    lse = torch.full_like(grouped[..., 0], -math.inf)
    last = torch.arange(kv_len - q_len, kv_len, device=q.device)[:, None]
    seen = None if mask is None else mask.expand(batch, n_heads, q_len, kv_len).unflatten(1, (n_kv_heads, -1))
    for keys, values, at in zip(
        *(t.split(tile, dim=2) for t in (k, v)), torch.arange(kv_len, device=q.device).split(tile), strict=True
    ):
        scores = torch.einsum("bkgqd,bkpd->bkgqp", grouped, widened(keys)) * head_dim**-0.5
        if causal:
            scores = torch.where(at <= last, scores, -math.inf)
        if seen is not None:
            scores = torch.where(seen[..., at[0] : at[-1] + 1], scores, -math.inf)
        of_tile = scores.logsumexp(dim=-1)
        weights = torch.where((of_tile == -math.inf)[..., None], 0.0, scores.softmax(dim=-1))
        y, lse = _moved(y, lse, torch.einsum("bkgqp,bkpd->bkgqd", weights, widened(values)), of_tile)
    return y.flatten(1, 2).to(q.dtype), lse.flatten(1, 2)


def _moved(y_a, lse_a, y_b, lse_b):
    share = torch.where(lse_b == -math.inf, 0.0, torch.where(lse_a == -math.inf, 1.0, torch.sigmoid(lse_b - lse_a)))
    y_a, y_b = (torch.where((lse == -math.inf)[..., None], 0.0, y) for y, lse in ((y_a, lse_a), (y_b, lse_b)))
    return y_a - share[..., None] * (y_a - y_b), torch.logaddexp(lse_a, lse_b)
