"""Self-attention: every position asks all positions before it, in several heads at once.

    q, k, v = w_q · x, w_k · x, w_v · x         each split into heads of head_dim features
    heads   = attention(rope(q), rope(k), v)    causal
    y       = w_o · merge(heads)

    x [batch seq d_model], w_q [n_heads·head_dim d_model], w_k and w_v [n_kv_heads·head_dim d_model],
    w_o [d_model n_heads·head_dim], positions [seq] or [batch seq] int64, frequencies [head_dim/2]
    -> [batch seq d_model]

Head h is the rows h·head_dim .. (h+1)·head_dim - 1 of w_q, and the same columns of w_o. Queries and keys
are rotated, values are not. head_dim comes from w_q and need not be d_model / n_heads. x and the weights have
one dtype, which is that of the result; positions and frequencies keep theirs.

`compose` is written over the layers that it is given: `layers.linear`, `layers.rope`, `layers.attention`.
With a cache (anything with `attend(layers, q, k, v) -> heads`, which has kept the keys and values of earlier
positions), x holds the newest positions.

Raises ValueError where the rows of w_q, w_k or w_v do not divide into the heads.
Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2; Touvron et al. 2023, "LLaMA".
"""

from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract


def check(
    layers: Any,
    x: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    n_heads: int,
    n_kv_heads: int,
    positions: Tensor,
    frequencies: Tensor,
    cache: Any = None,
    *,
    layer: str = "self_attention",
) -> None:
    if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
        raise ValueError(f"{layer}: n_kv_heads must divide n_heads, got {n_kv_heads} and {n_heads}")
    if w_q.shape[0] % n_heads or w_k.shape[0] * n_heads != w_q.shape[0] * n_kv_heads:
        raise ValueError(
            f"{layer}: the rows of w_q and w_k must be n_heads={n_heads} and n_kv_heads={n_kv_heads} times "
            f"one head_dim, got {w_q.shape[0]} and {w_k.shape[0]}"
        )


@contract(check)
def compose(
    layers: Any,
    x: Float[Tensor, "batch seq d_model"],
    w_q: Float[Tensor, "q_rows d_model"],
    w_k: Float[Tensor, "kv_rows d_model"],
    w_v: Float[Tensor, "kv_rows d_model"],
    w_o: Float[Tensor, "d_model q_rows"],
    n_heads: int,
    n_kv_heads: int,
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "half"],
    cache: Any = None,
) -> Float[Tensor, "batch seq d_model"]:
    # [batch seq heads·head_dim] -> [batch heads seq head_dim]
    q = layers.linear(x, w_q).unflatten(-1, (n_heads, -1)).transpose(1, 2)
    k = layers.linear(x, w_k).unflatten(-1, (n_kv_heads, -1)).transpose(1, 2)
    v = layers.linear(x, w_v).unflatten(-1, (n_kv_heads, -1)).transpose(1, 2)
    q, k = layers.rope(q, positions, frequencies), layers.rope(k, positions, frequencies)
    heads = layers.attention(q, k, v) if cache is None else cache.attend(layers, q, k, v)
    # [batch heads seq head_dim] -> [batch seq heads·head_dim]
    return layers.linear(heads.transpose(1, 2).flatten(2), w_o)
