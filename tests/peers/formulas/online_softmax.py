"""Attention in tiles or pages, whose softmax is never there as a whole."""

import math

import torch

from tests.peers.formulas._shared import visible_keys, widened


def attention(q, k, v, causal=True, mask=None, tile=3):
    """A few keys at a time, with a running maximum and a running sum, as in FlashAttention."""
    groups = q.shape[1] // k.shape[1]
    visible = visible_keys(q, k, causal, mask)
    queries = widened(q) / math.sqrt(q.shape[-1])
    keys, values = (widened(t).repeat_interleave(groups, dim=1) for t in (k, v))
    largest = torch.full_like(queries[..., :1], -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(queries)
    for start in range(0, k.shape[2], tile):
        part = slice(start, start + tile)
        scores = (queries @ keys[:, :, part].mT).masked_fill(~visible[..., part], -math.inf)
        new = torch.maximum(largest, scores.detach().amax(dim=-1, keepdim=True))
        finite = new.masked_fill(new == -math.inf, 0.0)
        weights, correction = (scores - finite).exp(), (largest - finite).exp()
        total = total * correction + weights.sum(dim=-1, keepdim=True)
        out = out * correction + weights @ values[:, :, part]
        largest = new
    return (out / total.masked_fill(total == 0, 1.0)).to(q.dtype)


def tiled_attention(q, k, v, causal=True, mask=None, tile=64):
    """All queries that read a key head are rows of one matrix, and the last tile comes first."""
    if tile < 1:
        raise ValueError(f"tiled_attention: tile must be at least 1, got {tile}")
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    rows = (widened(q) / math.sqrt(head_dim)).reshape(batch, n_kv_heads, n_heads // n_kv_heads * q_len, head_dim)
    last = torch.arange(kv_len - q_len, kv_len, device=q.device).repeat(n_heads // n_kv_heads)[:, None]
    whole = None if mask is None else mask.expand(batch, n_heads, q_len, kv_len)
    largest, total, out = torch.full_like(rows[..., :1], -math.inf), torch.zeros_like(rows[..., :1]), rows * 0
    for start in reversed(range(0, kv_len, tile)):
        part = slice(start, min(start + tile, kv_len))
        scores = rows @ widened(k[:, :, part]).mT
        if causal:
            scores[:, :, torch.arange(part.start, part.stop, device=q.device) > last] = -math.inf
        if whole is not None:
            scores = scores.where(whole[..., part].reshape(scores.shape), -math.inf)
        new = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        finite = new.masked_fill(new == -math.inf, 0.0)
        weights, correction = (scores - finite).exp(), (largest - finite).exp()
        total, out = total * correction + weights.sum(-1, keepdim=True), out * correction
        out, largest = out + weights @ widened(v[:, :, part]), new
    lse = (largest + total.log())[..., 0].view(batch, n_heads, q_len)
    return (out / total.masked_fill(total == 0, 1.0)).view(q.shape).to(q.dtype), lse


def paged_attention(q, key_pages, value_pages, page_table, lengths):
    """Page after page of all sequences, with a running maximum and a running sum, as kernels for GPUs go."""
    n_kv_heads, page_size = key_pages.shape[1:3]
    queries = widened(q).unflatten(1, (n_kv_heads, -1)) / math.sqrt(q.shape[-1])
    largest = torch.full_like(queries[..., :1], -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(queries)
    slots = torch.arange(page_size, device=q.device)
    for number, pages in enumerate(page_table.unbind(1)):
        held = number * page_size + slots < lengths[:, None]
        if not held.any():
            break
        pages = pages.where(held[:, 0], pages[held[:, 0]][0])  # any page that there is, where none is read
        keys, values = (widened(of[pages]).masked_fill(~held[:, None, :, None], 0.0) for of in (key_pages, value_pages))
        scores = (queries @ keys.mT).masked_fill(~held[:, None, None], -math.inf)
        new = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        finite = new.masked_fill(new == -math.inf, 0.0)
        weights, correction = (scores - finite).exp(), (largest - finite).exp()
        total = total * correction + weights.sum(dim=-1, keepdim=True)
        out = out * correction + weights @ values
        largest = new
    return (out / total.masked_fill(total == 0, 1.0)).flatten(1, 2).to(q.dtype)
