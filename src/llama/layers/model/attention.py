"""Attention: each query takes the mean of the values, weighted by how well their keys match it.

    scores[q, k]  = query_q · key_k / sqrt(head_dim)             for the keys that q may attend to
    y_q           = sum_k softmax(scores[q])_k · value_k

    q [batch n_heads q_len head_dim], k and v [batch n_kv_heads kv_len head_dim],
    causal, mask bool broadcastable to [batch n_heads q_len kv_len] or None -> like q

Grouped heads: query head h reads key and value head h // (n_heads / n_kv_heads). When causal, the
queries are the last q_len of the kv_len positions, and each sees its own position and what came before.
In `mask`, True means "may attend"; it combines with causal. A query that may attend to nothing gives
zeros. A hidden key has no influence at all, whatever its score. q, k and v have one dtype, which is that of
the result. Scores are computed in at least float32, so that float16 does not overflow.

Raises ValueError where n_kv_heads does not divide n_heads, where there are more queries than positions
(when causal), and where the mask does not broadcast.
Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1; Ainslie et al. 2023, "GQA", section 2.2.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from llama.contract import contract
from llama.layers.model import CACHED

FEW_SCORES, MANY_HEADS = 256 * 256, 16
"""Up to so many scores in a head, and from so many heads in all, it pays to keep the weights for the gradient."""


def check(
    q: Tensor | ndarray,
    k: Tensor | ndarray,
    v: Tensor | ndarray,
    causal: bool = True,
    mask: Tensor | ndarray | None = None,
    *,
    layer: str = "attention",
) -> None:
    (batch, n_heads, q_len, _), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    if n_kv_heads == 0 or n_heads % n_kv_heads:
        raise ValueError(f"{layer}: n_kv_heads must divide n_heads, got {n_kv_heads} and {n_heads}")
    if causal and q_len > kv_len:
        raise ValueError(f"{layer}: causal needs q_len <= kv_len, got {q_len} and {kv_len}")
    if mask is not None:
        full = (batch, n_heads, q_len, kv_len)
        axes = zip(reversed(mask.shape), reversed(full), strict=False)
        if mask.ndim > 4 or any(size not in (1, whole) for size, whole in axes):
            raise ValueError(f"{layer}: mask must broadcast to {list(full)}, got {list(mask.shape)}")


@contract(check)
def naive(
    q: Float[ndarray, "batch n_heads q_len head_dim"],
    k: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    v: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[ndarray, "..."] | None = None,
) -> Float[ndarray, "batch n_heads q_len head_dim"]:
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    may_attend = np.broadcast_to(True if mask is None else mask, (batch, n_heads, q_len, kv_len))
    y = np.zeros(q.shape)
    # Python's floats are the same float64, and much faster in a loop than NumPy's.
    queries, keys, values = q.tolist(), k.tolist(), v.tolist()
    for b, h, t in np.ndindex(batch, n_heads, q_len):
        kv = h // (n_heads // n_kv_heads)
        position = kv_len - q_len + t
        visible = [s for s in range(kv_len) if may_attend[b, h, t, s] and (s <= position or not causal)]
        scores = []
        for s in visible:
            product = 0.0
            for a, c in zip(queries[b][h][t], keys[b][kv][s], strict=True):
                product += a * c
            scores.append(product / math.sqrt(head_dim))
        largest = max(scores, default=0.0)
        powers = [math.exp(score - largest) for score in scores]
        total = sum(powers)
        mean = [0.0] * head_dim
        for s, power in zip(visible, powers, strict=True):
            for i, feature in enumerate(values[b][kv][s]):
                mean[i] += power / total * feature
        y[b, h, t] = mean
    return y


@contract(check, one_dtype=True)
def vectorized(
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "batch n_heads q_len head_dim"]:
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).transpose(-2, -1) / math.sqrt(q.shape[-1])
    may_attend = causal_mask(q.shape[2], k.shape[2], q.device) if causal else torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        may_attend = may_attend & mask
    scores = scores.masked_fill(~may_attend, -torch.inf)
    if scores.shape[-1] == 0:
        return torch.zeros_like(q)
    # Where nothing is visible the largest score is -inf; any finite number in its place leaves all powers 0.
    largest = scores.amax(dim=-1, keepdim=True).detach()
    powers = torch.exp(scores - largest.masked_fill(largest == -torch.inf, 0))
    # The largest visible score has the power 1, so only a sum of nothing lies below 1.
    weights = powers / powers.sum(dim=-1, keepdim=True).clamp(min=1)
    return (weights @ v.to(wide)).to(q.dtype)


@contract(check, one_dtype=True)
def fused(
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "batch n_heads q_len head_dim"]:
    q_len, kv_len, grouped = q.shape[2], k.shape[2], q.shape[1] != k.shape[1]
    learning = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    slow = q.is_cpu and q.dtype == torch.bfloat16 and not torch.is_autocast_enabled("cpu")
    pays = q.numel() > 0 and q_len * kv_len <= FEW_SCORES and q.shape[0] * q.shape[1] >= MANY_HEADS
    if learning and slow and pays and causal and mask is None:
        return _WithGradient.apply(q, k, v)
    mask = mask if mask is None else torch.atleast_2d(mask)  # torch asks for the axes of queries and keys
    # torch's is_causal aligns the first query with the first key, which is ours only where the lengths
    # are equal; a single last query sees everything, so decoding needs no mask at all.
    if causal and mask is None and (q_len == kv_len or q_len == 1):
        return F.scaled_dot_product_attention(q, k, v, is_causal=q_len > 1, enable_gqa=grouped)
    if causal:
        lower = causal_mask(q_len, kv_len, q.device)
        mask = lower if mask is None else lower & mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


class _WithGradient(torch.autograd.Function):
    """Causal attention that keeps its weights: on a CPU torch's own gradient takes several times as long in bfloat16.

    As many heads at a time as have CACHED scores together. The queries that share a key head stand behind each
    other as rows of one matrix.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_len, kv_len, n_kv_heads = q.shape[2], k.shape[2], k.shape[1]
        shapes = q.shape, k.shape
        q, k, v = (t.reshape(t.shape[0] * n_kv_heads, -1, t.shape[-1]) for t in (q, k, v))
        wide, scale = torch.promote_types(q.dtype, torch.float32), 1 / math.sqrt(q.shape[-1])
        hidden = ~causal_mask(q_len, kv_len, q.device).repeat(q.shape[1] // q_len, 1)
        nothing = torch.zeros((), dtype=wide)
        # Compiled, what is written into a part of a tensor is a copy of the whole tensor.
        few = len(q) if torch.compiler.is_compiling() else CACHED // hidden.numel() + 1
        weights, y = q.new_empty(*q.shape[:2], kv_len), torch.empty_like(q)
        some = [slice(i, i + few) for i in range(0, len(q), few)]
        for heads in some:
            scores = torch.baddbmm(nothing, q[heads].to(wide), k[heads].to(wide).mT, beta=0, alpha=scale)
            weights[heads] = scores.masked_fill_(hidden, -torch.inf).softmax(-1)
            torch.bmm(weights[heads], v[heads], out=y[heads])
        ctx.save_for_backward(q, k, v, weights)
        ctx.shapes, ctx.some, ctx.scale = shapes, some, scale
        return y.view(shapes[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, weights = ctx.saved_tensors
        grad = grad.reshape(q.shape)
        grad_q, grad_k, grad_v = (torch.empty_like(t) for t in (q, k, v))
        for heads in ctx.some:
            towards = grad[heads] @ v[heads].mT
            grad_scores = torch.ops.aten._softmax_backward_data(towards, weights[heads], -1, q.dtype).mul_(ctx.scale)
            torch.bmm(grad_scores, k[heads], out=grad_q[heads])
            torch.bmm(grad_scores.mT, q[heads], out=grad_k[heads])
            torch.bmm(weights[heads].mT, grad[heads], out=grad_v[heads])
        shape_q, shape_kv = ctx.shapes
        return grad_q.view(shape_q), grad_k.view(shape_kv), grad_v.view(shape_kv)


def causal_mask(q_len: int, kv_len: int, device: torch.device) -> Bool[Tensor, "q_len kv_len"]:
    return torch.ones(q_len, kv_len, dtype=torch.bool, device=device).tril(kv_len - q_len)
