"""Paged attention: one new query for each sequence, over keys and values that lie in pages.

    position p of sequence b   is slot p % page_size of page page_table[b, p // page_size]
    y[b] = attention of q[b] over positions 0 .. lengths[b] - 1

    q [batch n_heads head_dim], key_pages and value_pages [n_pages n_kv_heads page_size head_dim],
    page_table [batch max_pages] int64, lengths [batch] int64 -> [batch n_heads head_dim]

Scores are divided by sqrt(head_dim), and query head h reads key head h // (n_heads / n_kv_heads); the query sees every
position. A sequence of length 0 gives
zeros. Pages may lie in any order and belong to several sequences. What lies beyond a length has no influence and raises
nothing: slots may hold NaN, and entries of the table any number.

q and the pages have one dtype, which is that of the result. All is computed in at least float32, and in float64 where
q is.

Raises ValueError where n_kv_heads does not divide n_heads, for a negative length, and for one beyond
max_pages · page_size; IndexError where an entry that is used is no page.
Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention".
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import check_ids, contract

FILLED = 2
"""Up to so many times the positions that are held, it is faster to read those of all sequences in one call."""


def check(
    q: Tensor | ndarray,
    key_pages: Tensor | ndarray,
    value_pages: Tensor | ndarray,
    page_table: Tensor | ndarray,
    lengths: Tensor | ndarray,
) -> None:
    (n_pages, n_kv_heads, page_size, _), n_heads, max_pages = key_pages.shape, q.shape[1], page_table.shape[1]
    if n_kv_heads == 0 or n_heads % n_kv_heads:
        raise ValueError(f"paged_attention: n_kv_heads must divide n_heads, got {n_kv_heads} and {n_heads}")
    for length in lengths.tolist():
        if not 0 <= length <= max_pages * page_size:
            raise ValueError(
                f"paged_attention: lengths must lie in 0..{max_pages * page_size}, which is what "
                f"{max_pages} pages of {page_size} hold, got {length}"
            )
    for row, length in zip(page_table, lengths.tolist(), strict=True):
        check_ids("paged_attention: page_table", row[: _pages(length, page_size)], n_pages)


def _pages(length: int, page_size: int) -> int:
    """How many pages so many positions take."""
    return -(-length // page_size) if page_size else 0


@contract(check)
def naive(
    q: Float[ndarray, "batch n_heads head_dim"],
    key_pages: Float[ndarray, "n_pages n_kv_heads page_size head_dim"],
    value_pages: Float[ndarray, "n_pages n_kv_heads page_size head_dim"],
    page_table: Int64[ndarray, "batch max_pages"],
    lengths: Int64[ndarray, "batch"],
) -> Float[ndarray, "batch n_heads head_dim"]:
    (batch, n_heads, head_dim), (n_kv_heads, page_size) = q.shape, key_pages.shape[1:3]
    y = np.zeros(q.shape)
    for b, h in np.ndindex(batch, n_heads):
        kv = h // (n_heads // n_kv_heads)
        scores, places = [], []
        for position in range(lengths[b]):
            page, slot = page_table[b, position // page_size], position % page_size
            product = 0.0
            for i in range(head_dim):
                product += q[b, h, i] * key_pages[page, kv, slot, i]
            scores.append(product / math.sqrt(head_dim))
            places.append((page, slot))
        largest = max(scores, default=0.0)
        powers = [math.exp(score - largest) for score in scores]
        total = sum(powers)
        for power, (page, slot) in zip(powers, places, strict=True):
            for i in range(head_dim):
                y[b, h, i] += power / total * value_pages[page, kv, slot, i]
    return y


@contract(check, one_dtype=True)
def vectorized(
    q: Float[Tensor, "batch n_heads head_dim"],
    key_pages: Float[Tensor, "n_pages n_kv_heads page_size head_dim"],
    value_pages: Float[Tensor, "n_pages n_kv_heads page_size head_dim"],
    page_table: Int64[Tensor, "batch max_pages"],
    lengths: Int64[Tensor, "batch"],
) -> Float[Tensor, "batch n_heads head_dim"]:
    page_size, groups = key_pages.shape[2], q.shape[1] // key_pages.shape[1]
    used = _pages(max(lengths.tolist(), default=0), page_size)
    if used == 0:
        return torch.zeros_like(q)
    held = torch.arange(used * page_size, device=q.device) < lengths[:, None]
    # An entry of the table beyond the length may be any number: some page in its place, which is hidden too.
    table = page_table[:, :used].clamp(0, len(key_pages) - 1)
    wide = torch.promote_types(q.dtype, torch.float32)

    def gathered(pages: Tensor) -> Tensor:
        # [batch used n_kv_heads page_size head_dim] -> [batch n_heads positions head_dim]
        of_sequence = pages[table].transpose(1, 2).flatten(2, 3)
        # What lies beyond a length may be NaN, and 0 · NaN is NaN.
        return of_sequence.masked_fill(~held[:, None, :, None], 0).to(wide).repeat_interleave(groups, dim=1)

    keys, values = gathered(key_pages), gathered(value_pages)
    scores = (keys @ q.to(wide)[..., None])[..., 0] / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~held[:, None], -torch.inf)
    # Of a sequence of length 0 the largest score is -inf; any finite number in its place leaves all powers 0.
    largest = scores.amax(dim=-1, keepdim=True)
    powers = torch.exp(scores - largest.masked_fill(largest == -torch.inf, 0))
    # The largest score has the power 1, so only a sum of nothing lies below 1.
    weights = powers / powers.sum(dim=-1, keepdim=True).clamp(min=1)
    return (weights[..., None, :] @ values)[..., 0, :].to(q.dtype)


@contract(check, one_dtype=True)
def fused(
    q: Float[Tensor, "batch n_heads head_dim"],
    key_pages: Float[Tensor, "n_pages n_kv_heads page_size head_dim"],
    value_pages: Float[Tensor, "n_pages n_kv_heads page_size head_dim"],
    page_table: Int64[Tensor, "batch max_pages"],
    lengths: Int64[Tensor, "batch"],
) -> Float[Tensor, "batch n_heads head_dim"]:
    n_kv_heads, page_size, head_dim = key_pages.shape[1:]
    held, longest = lengths.tolist(), max(lengths.tolist(), default=0)
    # What a page holds of a head is one row of memory, which is copied once, to where attention reads it.
    rows_lie_in_order = key_pages.is_contiguous() and value_pages.is_contiguous()
    if rows_lie_in_order and 0 < len(held) * longest <= FILLED * sum(held):
        return _together(q, key_pages, value_pages, page_table, lengths, longest)
    y = torch.zeros_like(q)
    heads = torch.arange(n_kv_heads, device=q.device)[:, None]
    caches = [of.flatten(0, 1).flatten(1) if rows_lie_in_order else of for of in (key_pages, value_pages)]
    for b, length in enumerate(held):
        if length:
            pages = page_table[b, : _pages(length, page_size)]
            if rows_lie_in_order:
                rows = torch.add(heads, pages, alpha=n_kv_heads).view(-1)
                found = [of.index_select(0, rows).view(1, n_kv_heads, -1, head_dim) for of in caches]
            else:
                found = [of.index_select(0, pages).transpose(0, 1).flatten(1, 2)[None] for of in caches]
            keys, values = (of[:, :, :length] for of in found)
            # The query heads that share a key head are queries of one head, which then reads its keys once.
            queries = q[b].reshape(1, n_kv_heads, -1, head_dim)
            y[b] = F.scaled_dot_product_attention(queries, keys, values).reshape(q.shape[1:])
    return y


def _together(
    q: Tensor, key_pages: Tensor, value_pages: Tensor, page_table: Tensor, lengths: Tensor, longest: int
) -> Tensor:
    """All sequences in one call, as if each were as long as the longest."""
    n_kv_heads, page_size, head_dim = key_pages.shape[1:]
    used = _pages(longest, page_size)
    hidden = torch.arange(used * page_size, device=q.device) >= lengths[:, None]
    # An entry beyond the length may be any number: page 0 in its place, which is hidden too.
    table = page_table[:, :used].masked_fill(hidden[:, ::page_size], 0)
    heads = torch.arange(n_kv_heads, device=q.device)[:, None]
    rows = torch.add(heads, table[:, None], alpha=n_kv_heads).view(-1)
    keys, values = (
        of.flatten(0, 1).flatten(1).index_select(0, rows).view(len(q), n_kv_heads, -1, head_dim)
        for of in (key_pages, value_pages)
    )
    # What lies beyond a length may be NaN, and 0 · NaN is NaN. It is little, and filled one by one in a tenth of the
    # time.
    for b, length in enumerate(lengths.tolist()):
        keys[b, :, length:] = 0
        values[b, :, length:] = 0
    # The query heads that share a key head are queries of one head, which then reads its keys once.
    queries = q.reshape(len(q), n_kv_heads, -1, head_dim)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=~hidden[:, None, None]).reshape(q.shape)
