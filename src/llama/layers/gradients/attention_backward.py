"""The gradient of attention: the weights are computed again, and then it goes back through values, softmax and scores.

    s[q, k] = query_q · key_k / sqrt(head_dim)   p[q] = softmax(s[q]) over the visible keys   y_q = sum_k p[q, k] · v_k

    grad_v_k   = sum_q p[q, k] · grad_q
    grad_p     = grad_q · v_k                      grad_s[q, k] = p[q, k] · (grad_p - sum_j p[q, j] · (grad_q · v_j))
    grad_q_q   = sum_k grad_s[q, k] · key_k / sqrt(head_dim)
    grad_k_k   = sum_q grad_s[q, k] · query_q / sqrt(head_dim)

    grad like q, q [batch n_heads q_len head_dim], k and v [batch n_kv_heads kv_len head_dim],
    causal, mask bool broadcastable to [batch n_heads q_len kv_len] or None -> (grad_q, grad_k, grad_v) like q, k and v

Several query heads read one key head: its gradient is the sum over them. The scale stands in the scores, so once in
grad_q and once in grad_k. A hidden key gets exactly nothing from that query; a query that may attend to nothing has
zeros, and gives none. As in attention, query head h reads key head h // (n_heads / n_kv_heads), and causal takes the
queries for the last q_len of the kv_len positions. True in `mask` means "may attend". Sums are in at least float32.

Raises ValueError where n_kv_heads does not divide n_heads, where there are more queries than positions (when causal),
and where the mask does not broadcast.
Source: Dao et al. 2022, "FlashAttention", appendix B.2; Ainslie et al. 2023, "GQA", section 2.2.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import attention, wide

GRADIENTS = ("q", "k", "v")


def check(grad: Tensor | ndarray, *arguments: Any, kept: Any = None, **named: Any) -> None:
    attention.check(*arguments, **named, layer="attention_backward")


@contract(check)
def naive(
    grad: Float[ndarray, "batch n_heads q_len head_dim"],
    q: Float[ndarray, "batch n_heads q_len head_dim"],
    k: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    v: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[ndarray, "..."] | None = None,
) -> tuple[
    Float[ndarray, "batch n_heads q_len head_dim"],
    Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    Float[ndarray, "batch n_kv_heads kv_len head_dim"],
]:
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    may_attend = np.broadcast_to(True if mask is None else mask, (batch, n_heads, q_len, kv_len))
    grad_q, grad_k, grad_v = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    scale = 1 / math.sqrt(head_dim) if head_dim else 0.0
    # Python's floats are the same float64, and much faster in a loop than NumPy's.
    queries, keys, values, towards = q.tolist(), k.tolist(), v.tolist(), grad.tolist()
    for b, h, t in np.ndindex(batch, n_heads, q_len):
        kv = h // (n_heads // n_kv_heads)
        position = kv_len - q_len + t
        visible = [s for s in range(kv_len) if may_attend[b, h, t, s] and (s <= position or not causal)]
        query, toward = queries[b][h][t], towards[b][h][t]
        scores = [_dot(query, keys[b][kv][s]) * scale for s in visible]
        largest = max(scores, default=0.0)
        powers = [math.exp(score - largest) for score in scores]
        total = sum(powers)
        weights = [power / total for power in powers]
        toward_weights = [_dot(toward, values[b][kv][s]) for s in visible]
        mean = _dot(weights, toward_weights)
        for s, weight, toward_weight in zip(visible, weights, toward_weights, strict=True):
            toward_score = weight * (toward_weight - mean)
            for i in range(head_dim):
                grad_v[b, kv, s, i] += weight * toward[i]
                grad_q[b, h, t, i] += toward_score * keys[b][kv][s][i] * scale
                grad_k[b, kv, s, i] += toward_score * query[i] * scale
    return grad_q, grad_k, grad_v


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@contract(check)
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "batch n_heads q_len head_dim"],
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[
    Float[Tensor, "batch n_heads q_len head_dim"],
    Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    Float[Tensor, "batch n_kv_heads kv_len head_dim"],
]:
    dtype, groups = wide(grad, q, k, v), q.shape[1] // k.shape[1]
    towards, queries = grad.to(dtype), q.to(dtype)
    keys, values = (t.to(dtype).repeat_interleave(groups, dim=1) for t in (k, v))
    scores = queries @ keys.mT / math.sqrt(max(1, q.shape[-1]))
    visible = torch.ones_like(scores, dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2])
    visible = visible if mask is None else visible & mask
    # In between, a row without a visible key is NaN.
    weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1).masked_fill(~visible, 0)
    toward_weights = (towards @ values.mT).masked_fill(~visible, 0)
    mean = (weights * toward_weights).sum(dim=-1, keepdim=True)
    toward_scores = weights * (toward_weights - mean) / math.sqrt(max(1, q.shape[-1]))
    grad_k, grad_v = toward_scores.mT @ queries, weights.mT @ towards
    # [batch n_heads kv_len head_dim] -> [batch n_kv_heads groups kv_len head_dim], and the sum over each group
    grad_k, grad_v = (t.unflatten(1, (k.shape[1], groups)).sum(dim=2) for t in (grad_k, grad_v))
    return (toward_scores @ keys).to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


@contract(check)
@torch.no_grad()
def fused(
    grad: Float[Tensor, "batch n_heads q_len head_dim"],
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
    kept: Any = None,
) -> tuple[
    Float[Tensor, "batch n_heads q_len head_dim"],
    Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    Float[Tensor, "batch n_kv_heads kv_len head_dim"],
]:
    if not q.is_cpu or q.numel() == 0 or k.numel() == 0:
        return unchecked(vectorized)(grad, q, k, v, causal, mask)
    # In half precision torch's kernel rounds y, which the weighted mean is made of, and takes several times as long.
    # It makes the weights anew from the logarithms of their sums: as exactly as 2^-24 of the largest score.
    kept = kept or _attended(q, k, v, wide(grad, q, k, v), causal, mask)
    grad_q, grad_k, grad_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        _rows(grad, kept.q.dtype), *kept[:5], 0.0, kept.upper_left, attn_mask=kept.hidden
    )
    if (groups := q.shape[1] // k.shape[1]) > 1:
        grad_k, grad_v = (t.unflatten(1, (-1, groups)).sum(dim=2) for t in (grad_k, grad_v))
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


def forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True, mask: Tensor | None = None
) -> tuple[Tensor, dict[str, Any]]:
    if not q.is_cpu or q.dtype != wide(q, k, v) or q.numel() == 0 or k.numel() == 0:
        return attention.fused(q, k, v, causal, mask), {}
    kept = _attended(q, k, v, q.dtype, causal, mask)
    return kept.y, {"kept": kept}


class _Kept(NamedTuple):
    """What torch's kernel is given, and what it returns."""

    q: Float[Tensor, "batch n_heads q_len head_dim"]
    keys: Float[Tensor, "batch n_heads kv_len head_dim"]
    values: Float[Tensor, "batch n_heads kv_len head_dim"]
    y: Float[Tensor, "batch n_heads q_len head_dim"]
    log_sums: Float[Tensor, "batch n_heads q_len"]
    upper_left: bool
    hidden: Float[Tensor, "..."] | None


def _attended(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype, causal: bool, mask: Tensor | None) -> _Kept:
    """Attention in that dtype, with the logarithm of the sum of each query's powers."""
    q, keys, values = (_rows(t, dtype) for t in (q, k, v))
    if (groups := q.shape[1] // k.shape[1]) > 1:
        keys, values = (t.repeat_interleave(groups, dim=1) for t in (keys, values))
    plain = mask is None and (not causal or q.shape[2] == k.shape[2])
    upper_left, hidden = causal and plain, None if plain else _hidden(q, k.shape[2], causal, mask)
    y, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, keys, values, 0.0, upper_left, attn_mask=hidden
    )
    return _Kept(q, keys, values, y, log_sums, upper_left, hidden)


def _rows(t: Tensor, dtype: torch.dtype) -> Tensor:
    """In that dtype, the features of a head next to each other, as torch's kernels take them to be."""
    t = t.to(dtype)
    return t if t.stride(-1) == 1 else t.contiguous()


def _hidden(q: Tensor, kv_len: int, causal: bool, mask: Tensor | None) -> Tensor:
    """0 where a query may attend to a key, -inf where not."""
    visible = attention.causal_mask(q.shape[2], kv_len, q.device) if causal else torch.ones((), dtype=torch.bool)
    visible = visible if mask is None else visible & mask
    hidden = torch.zeros(visible.shape, dtype=q.dtype).masked_fill_(~visible, -torch.inf)
    return hidden.expand(*q.shape[:3], kv_len)
