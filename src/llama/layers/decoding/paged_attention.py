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

FEW = 2**16
"""Numbers in the keys of a sequence up to which it pays to read all sequences in one call, as long as the longest."""


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
    held = lengths.tolist()
    longest = max(held, default=0)
    # The query heads that share a key head are queries of one head, which then reads its keys once.
    queries = q.reshape(len(q), n_kv_heads, q.shape[1] // n_kv_heads, head_dim)
    y = torch.zeros_like(queries)
    if 0 < longest * n_kv_heads * head_dim <= FEW:
        # An entry of the table beyond the length may be any number: some page in its place, which is hidden too.
        table = page_table[:, : _pages(longest, page_size)].clamp(0, len(key_pages) - 1)
        keys, values = _gathered(key_pages, table), _gathered(value_pages, table)
        # What lies beyond a length may be NaN, and 0 · NaN is NaN.
        for b, length in enumerate(held):
            keys[b, :, length:] = 0
            values[b, :, length:] = 0
        seen = torch.arange(keys.shape[2], device=q.device) < lengths[:, None, None, None]
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    else:
        for b, length in enumerate(held):
            if length:
                table = page_table[b : b + 1, : _pages(length, page_size)]
                keys, values = (_gathered(of, table)[:, :, :length] for of in (key_pages, value_pages))
                y[b] = F.scaled_dot_product_attention(queries[b : b + 1], keys, values)[0]
    return y.reshape(q.shape)


def _gathered(pages: Tensor, table: Tensor) -> Tensor:
    """The pages of each sequence as [batch n_kv_heads positions head_dim].

    What a page holds of a head is one row of memory, which is copied once, to where attention reads it.
    """
    _, n_kv_heads, page_size, head_dim = pages.shape
    heads = torch.arange(n_kv_heads, device=pages.device)[:, None]
    rows = torch.add(heads, table[:, None], alpha=n_kv_heads).flatten()
    return (
        pages.flatten(0, 1)
        .flatten(1)
        .index_select(0, rows)
        .view(len(table), n_kv_heads, table.shape[1] * page_size, head_dim)
    )
