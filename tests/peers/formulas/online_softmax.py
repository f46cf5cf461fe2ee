"""Attention in tiles, whose softmax is never there as a whole."""

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
