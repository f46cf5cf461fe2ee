"""Sums written as einsum."""

import functools
import math

import torch

from tests.peers.formulas import rotation_matrices
from tests.peers.formulas._shared import check_ids, visible_keys, widened


def softmax(x):
    powers = (widened(x) - widened(x).amax(dim=-1, keepdim=True)).exp()
    return torch.einsum("...n,...->...n", powers, 1 / torch.einsum("...n->...", powers)).to(x.dtype)


def cross_entropy(logits, targets):
    check_ids(targets, logits.movedim(-1, 0))
    wide = widened(logits)
    is_target = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    chosen = torch.einsum("...v->...", wide.where(is_target, 0.0))  # times one-hot, 0 · -inf would be NaN
    return (wide.logsumexp(dim=-1) - chosen).mean().to(logits.dtype)


def embedding(token_ids, weight):
    """A row of one 1 and zeros, times the weight."""
    check_ids(token_ids, weight)
    one_hot = token_ids[..., None] == torch.arange(weight.shape[0], device=weight.device)
    with torch.autocast(weight.device.type, enabled=False):  # to look up a row is no product of the contract
        return torch.einsum("...v,vd->...d", one_hot.to(weight.dtype), weight)


def linear(x, weight):
    return torch.einsum("...i,oi->...o", x, weight)


def swiglu(x, w_gate, w_up, w_down):
    gate = linear(x, w_gate)
    return torch.einsum("...f,...f,df->...d", gate * gate.sigmoid(), linear(x, w_up), w_down)


def rms_norm(x, weight, eps=1e-5):
    wide = widened(x)
    with torch.autocast(x.device.type, enabled=False):  # which takes a sum of squares for a product
        root = (torch.einsum("...d,...d->...", wide, wide) / x.shape[-1] + eps).rsqrt()
    return torch.einsum("...d,...,d->...d", wide, root, weight.to(wide.dtype)).to(x.dtype)


def attention(q, k, v, causal=True, mask=None):
    """Groups as an axis of their own, so that nothing is repeated."""
    n_kv_heads = k.shape[1]
    grouped = widened(q).unflatten(1, (n_kv_heads, -1))
    visible = visible_keys(q, k, causal, mask).unflatten(1, (n_kv_heads, -1))
    scores = torch.einsum("bkgqd,bkpd->bkgqp", grouped, widened(k)) * q.shape[-1] ** -0.5
    nothing = ~visible.any(dim=-1, keepdim=True)
    weights = scores.masked_fill(~visible & ~nothing, -math.inf).softmax(dim=-1).masked_fill(nothing, 0.0)
    return torch.einsum("bkgqp,bkpd->bkgqd", weights, widened(v)).flatten(1, 2).to(q.dtype)


def self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """Weights are split into heads, and what they make is never merged."""
    q, k, v = (
        torch.einsum("bsm,hdm->bhsd", x, w.unflatten(0, (n, -1)))
        for w, n in ((w_q, n_heads), (w_k, n_kv_heads), (w_v, n_kv_heads))
    )
    q, k = (rotation_matrices.rope(t, positions, frequencies) for t in (q, k))
    return torch.einsum("bhsd,mhd->bsm", attention(q, k, v), w_o.unflatten(1, (n_heads, -1)))


def merge_attention(y_a, lse_a, y_b, lse_b):
    """The softmax of both lse, and their logsumexp, over an axis of two parts."""
    dtypes = [t.dtype for t in (y_a, lse_a, y_b, lse_b)]
    wide = functools.reduce(torch.promote_types, dtypes, torch.float32)
    ys, sums = torch.stack((y_a.to(wide), y_b.to(wide))), torch.stack((lse_a.to(wide), lse_b.to(wide)))
    weights = torch.where(sums == -math.inf, 0.0, sums.softmax(dim=0))
    with torch.autocast(ys.device.type, enabled=False):  # a mean of two is no product of matrices
        y = torch.einsum("p...,p...d->...d", weights, torch.where((weights == 0)[..., None], 0.0, ys))
    return y.to(y_a.dtype), sums.logsumexp(dim=0).to(lse_a.dtype)


def quantized_linear(x, codes, scales):
    """The sum of each run first, then its scale."""
    wide = widened(x)
    runs, of_codes = wide.unflatten(-1, (scales.shape[1], -1)), codes.to(wide.dtype).unflatten(1, (scales.shape[1], -1))
    sums = torch.einsum("...gi,ogi->...og", runs, of_codes)
    return torch.einsum("...og,og->...o", sums, scales.to(wide.dtype)).to(x.dtype)


def paged_attention(q, key_pages, value_pages, page_table, lengths):
    """Pages and slots stay two axes: nothing is ever put in order."""
    n_kv_heads, page_size = key_pages.shape[1:3]
    at = torch.arange(page_table.shape[1], device=q.device)[:, None] * page_size + torch.arange(
        page_size, device=q.device
    )
    held = at < lengths[:, None, None]
    if not held.any():
        return torch.zeros_like(q)
    read = page_table.where(held[..., 0], page_table[held[..., 0]][0])
    keys, values = (widened(of[read]).where(held[:, :, None, :, None], 0.0) for of in (key_pages, value_pages))
    grouped = widened(q).unflatten(1, (n_kv_heads, -1))
    scores = torch.einsum("bkgd,bpksd->bkgps", grouped, keys) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~held[:, None, None], -math.inf).flatten(-2)
    weights = scores.masked_fill((lengths == 0)[:, None, None, None], 0.0).softmax(dim=-1).unflatten(-1, at.shape)
    return torch.einsum("bkgps,bpksd->bkgd", weights, values).flatten(1, 2).to(q.dtype)
