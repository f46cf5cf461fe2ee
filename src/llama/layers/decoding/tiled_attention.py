"""Tiled attention: attention that looks at a few keys at a time, and never holds all scores at once.

    for each tile of at most `tile` keys, from the first to the last:
        m'      = max(m, largest visible score of the tile)
        total   = exp(m - m') · total + sum of exp(score - m')
        y       = exp(m - m') · y     + sum of exp(score - m') · value
        m       = m'
    y   = y / total
    lse = m + log(total)

    q [batch n_heads q_len head_dim], k and v [batch n_kv_heads kv_len head_dim],
    causal, mask bool broadcastable to [batch n_heads q_len kv_len] or None, tile >= 1
    -> y like q, lse [batch n_heads q_len]

m, total and y begin with -inf, 0 and 0 for each query. y is what `attention` computes: scores are divided by
sqrt(head_dim), query head h reads key head h // (n_heads / n_kv_heads), causal queries are the last of the kv_len
positions, and True in the mask means "may attend", combined with causal. lse is the logarithm of the sum of the
exponentials of all visible scores, after scaling; `merge_attention` needs it. A query that may attend to nothing has
y zeros and lse -inf.

q, k and v have one dtype, which is that of y. Scores, sums and lse are float32, and float64 where q is. No tensor that
is allocated has more than batch · n_heads · max(q_len · tile, (q_len + kv_len) · head_dim) elements; views do not
count.

Raises ValueError for tile < 1, where n_kv_heads does not divide n_heads, where there are more queries than positions
(when causal), and where the mask does not broadcast.
Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3; Dao et al. 2022,
"FlashAttention", section 3.1.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.decoding import merge_attention
from llama.layers.model import attention


def result_dtypes(q: Tensor, *_: object, **__: object) -> tuple[torch.dtype, torch.dtype]:
    """Those of y and lse."""
    return q.dtype, torch.promote_types(q.dtype, torch.float32)


def check(
    q: Tensor | ndarray,
    k: Tensor | ndarray,
    v: Tensor | ndarray,
    causal: bool = True,
    mask: Tensor | ndarray | None = None,
    tile: int = 64,
) -> None:
    attention.check(q, k, v, causal, mask, layer="tiled_attention")
    if tile < 1:
        raise ValueError(f"tiled_attention: tile must be at least 1, got {tile}")


@contract(check)
def naive(
    q: Float[ndarray, "batch n_heads q_len head_dim"],
    k: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    v: Float[ndarray, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[ndarray, "..."] | None = None,
    tile: int = 64,
) -> tuple[Float[ndarray, "batch n_heads q_len head_dim"], Float[ndarray, "batch n_heads q_len"]]:
    (batch, n_heads, q_len, head_dim), (n_kv_heads, kv_len) = q.shape, k.shape[1:3]
    may_attend = np.broadcast_to(True if mask is None else mask, (batch, n_heads, q_len, kv_len))
    y, lse = np.zeros(q.shape), np.full(q.shape[:3], -math.inf)
    # Python's floats are the same float64, and much faster in a loop than NumPy's.
    queries, keys, values = q.tolist(), k.tolist(), v.tolist()
    for b, h, t in np.ndindex(batch, n_heads, q_len):
        kv = h // (n_heads // n_kv_heads)
        position = kv_len - q_len + t
        largest, total, mean = -math.inf, 0.0, [0.0] * head_dim
        for start in range(0, kv_len, tile):
            scores = {}
            for s in range(start, min(start + tile, kv_len)):
                if may_attend[b, h, t, s] and (s <= position or not causal):
                    product = 0.0
                    for a, c in zip(queries[b][h][t], keys[b][kv][s], strict=True):
                        product += a * c
                    scores[s] = product / math.sqrt(head_dim)
            if not scores:
                continue
            before, largest = largest, max(largest, *scores.values())
            factor = math.exp(before - largest)
            total *= factor
            mean = [factor * feature for feature in mean]
            for s, score in scores.items():
                power = math.exp(score - largest)
                total += power
                for i, feature in enumerate(values[b][kv][s]):
                    mean[i] += power * feature
        if total > 0:
            y[b, h, t] = [feature / total for feature in mean]
            lse[b, h, t] = largest + math.log(total)
    return y, lse


@contract(check, one_dtype=True)
def vectorized(
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
    tile: int = 64,
) -> tuple[Float[Tensor, "batch n_heads q_len head_dim"], Float[Tensor, "batch n_heads q_len"]]:
    (batch, n_heads, q_len, head_dim), kv_len, groups = q.shape, k.shape[2], q.shape[1] // k.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    queries = q.to(wide) / math.sqrt(head_dim)
    positions = torch.arange(kv_len - q_len, kv_len, device=q.device)[:, None]
    may_attend = None if mask is None else mask.expand(batch, n_heads, q_len, kv_len)
    largest = queries.new_full((batch, n_heads, q_len, 1), -torch.inf)
    total, y = torch.zeros_like(largest), torch.zeros_like(queries)
    for start in range(0, kv_len, tile):
        end = min(start + tile, kv_len)
        keys, values = (t[:, :, start:end].to(wide).repeat_interleave(groups, dim=1) for t in (k, v))
        scores = queries @ keys.mT
        if causal:
            scores = scores.masked_fill(torch.arange(start, end, device=q.device) > positions, -torch.inf)
        if may_attend is not None:
            scores = scores.masked_fill(~may_attend[..., start:end], -torch.inf)
        before, largest = largest, torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        # Where nothing is visible yet the largest score is -inf; any finite number in its place leaves all powers 0.
        finite = largest.masked_fill(largest == -torch.inf, 0)
        factor, powers = torch.exp(before - finite), torch.exp(scores - finite)
        total = factor * total + powers.sum(dim=-1, keepdim=True)
        y = factor * y + powers @ values
    # The largest visible score has the power 1, so only a sum of nothing lies below 1.
    y = y / total.clamp(min=1)
    return y.to(q.dtype), (largest + total.log())[..., 0]


@contract(check, one_dtype=True)
def fused(
    q: Float[Tensor, "batch n_heads q_len head_dim"],
    k: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    v: Float[Tensor, "batch n_kv_heads kv_len head_dim"],
    causal: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
    tile: int = 64,
) -> tuple[Float[Tensor, "batch n_heads q_len head_dim"], Float[Tensor, "batch n_heads q_len"]]:
    if not q.is_cpu or q.numel() == 0 or k.numel() == 0:
        return unchecked(vectorized)(q, k, v, causal, mask, tile)
    # Not in half precision, where the exp of torch's kernel is exact to 2^-14 alone.
    wide = torch.promote_types(q.dtype, torch.float32)
    y, lse = _by_kernel(q.to(wide), k.to(wide), v.to(wide), causal, mask, tile)
    return y.to(q.dtype), lse


def _by_kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None, tile: int) -> tuple[Tensor, Tensor]:
    q_len, kv_len = q.shape[2], k.shape[2]
    if mask is not None:
        return _masked(q, k, v, causal, mask, tile)
    if not causal or q_len == 1:
        return _kernel(q, k, v)
    # Its is_causal aligns the first query with the first key. So the keys that all queries see are taken by themselves.
    before = kv_len - q_len
    own = _kernel(q, k[:, :, before:], v[:, :, before:], is_causal=True)
    if before == 0:
        return own
    return unchecked(merge_attention.fused)(*_kernel(q, k[:, :, :before], v[:, :, :before]), *own)


def _masked(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """The kernel's mask is made of floats: it is made for as many keys at a time as may be allocated."""
    q_len, kv_len = q.shape[2], k.shape[2]
    mask = mask[(None,) * (4 - mask.ndim)].expand(-1, -1, -1, kv_len)
    positions = torch.arange(kv_len - q_len, kv_len, device=q.device)[:, None]
    step = max(tile, (q_len + kv_len) * q.shape[3] // q_len)
    whole: tuple[Tensor, Tensor] | None = None
    for start in range(0, kv_len, step):
        end = min(start + step, kv_len)
        visible = mask[..., start:end]
        if causal:
            visible = visible & (torch.arange(start, end, device=q.device) <= positions)
        bias = torch.zeros_like(visible, dtype=q.dtype).masked_fill(~visible, -torch.inf)
        y, lse = _kernel(q, k[:, :, start:end], v[:, :, start:end], attn_mask=bias)
        # Where nothing is visible its lse is 0.
        part = y, lse.masked_fill(~visible.any(dim=-1), -torch.inf)
        whole = part if whole is None else unchecked(merge_attention.fused)(*whole, *part)
    assert whole is not None  # there are keys
    return whole


def _kernel(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, attn_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """torch's for CPUs, which goes in tiles of its own size."""
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    y, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal, attn_mask=attn_mask)
    return y, lse
