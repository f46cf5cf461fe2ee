"""The gradient of self-attention: back through the output projection, attention, the turns and the three projections.

    q, k, v = rope(w_q · x), rope(w_k · x), w_v · x      heads = attention(q, k, v)      y = w_o · heads

    grad_heads, grad_w_o   = linear_backward(grad, heads, w_o)
    grad_q, grad_k, grad_v = attention_backward(grad_heads, q, k, v)
    grad_q, grad_k         = rope_backward of each
    grad_x                 = the sum over q, k and v of linear_backward's, each with the gradient of its weight

    grad like x, then the arguments of self_attention -> (grad_x, grad_w_q, grad_w_k, grad_w_v, grad_w_o)

positions [seq] or [batch seq] int64, frequencies [head_dim/2]. Attention is causal. Head h is the rows h·head_dim ..
(h+1)·head_dim - 1 of w_q, and the same columns of w_o. x reaches y by three ways, and their gradients add up.

`compose` is written over the layers that it is given: linear, rope and attention, and the gradients of all three.
`forward` is the layer itself, which keeps what `compose` would compute again.

Raises ValueError where the rows of w_q, w_k or w_v do not divide into the heads.
Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2, and the chain rule.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract
from llama.layers.model import self_attention

GRADIENTS = ("x", "w_q", "w_k", "w_v", "w_o")


def check(layers: Any, grad: Tensor, *arguments: Any, kept: Any = None, **named: Any) -> None:
    self_attention.check(layers, *arguments, **named, layer="self_attention_backward")


@contract(check)
@torch.no_grad()
def compose(
    layers: Any,
    grad: Float[Tensor, "batch seq d_model"],
    x: Float[Tensor, "batch seq d_model"],
    w_q: Float[Tensor, "q_rows d_model"],
    w_k: Float[Tensor, "kv_rows d_model"],
    w_v: Float[Tensor, "kv_rows d_model"],
    w_o: Float[Tensor, "d_model q_rows"],
    n_heads: int,
    n_kv_heads: int,
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "half"],
    kept: Any = None,
) -> tuple[
    Float[Tensor, "batch seq d_model"],
    Float[Tensor, "q_rows d_model"],
    Float[Tensor, "kv_rows d_model"],
    Float[Tensor, "kv_rows d_model"],
    Float[Tensor, "d_model q_rows"],
]:
    q, k, v, heads, more = kept or _heads(layers, x, w_q, w_k, w_v, n_heads, n_kv_heads, positions, frequencies)
    grad_heads, grad_w_o = layers.linear_backward(grad, heads, w_o)
    grad_q, grad_k, grad_v = layers.attention_backward(_split(grad_heads, n_heads), q, k, v, **more)
    grad_q, grad_k = (layers.rope_backward(g, positions, frequencies) for g in (grad_q, grad_k))
    grad_x, grad_w_q = layers.linear_backward(_merged(grad_q), x, w_q)
    by_k, grad_w_k = layers.linear_backward(_merged(grad_k), x, w_k)
    by_v, grad_w_v = layers.linear_backward(_merged(grad_v), x, w_v)
    grad_x += by_k
    grad_x += by_v
    return grad_x, grad_w_q, grad_w_k, grad_w_v, grad_w_o


def forward(
    layers: Any, x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, *how: Any
) -> tuple[Tensor, dict[str, Any]]:
    kept = _heads(layers, x, w_q, w_k, w_v, *how)
    return layers.linear(kept.heads, w_o), {"kept": kept}


class _Kept(NamedTuple):
    """What attention was given and what it returned, and what it keeps itself."""

    q: Float[Tensor, "batch n_heads seq head_dim"]
    k: Float[Tensor, "batch n_kv_heads seq head_dim"]
    v: Float[Tensor, "batch n_kv_heads seq head_dim"]
    heads: Float[Tensor, "batch seq q_rows"]
    more: dict[str, Any]


def _heads(
    layers: Any,
    x: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    n_heads: int,
    n_kv_heads: int,
    positions: Tensor,
    frequencies: Tensor,
) -> _Kept:
    q = _split(layers.linear(x, w_q), n_heads)
    k = _split(layers.linear(x, w_k), n_kv_heads)
    v = _split(layers.linear(x, w_v), n_kv_heads)
    q, k = layers.rope(q, positions, frequencies), layers.rope(k, positions, frequencies)
    heads, more = layers.keeping("attention")(q, k, v)
    return _Kept(q, k, v, _merged(heads), more)


def _split(rows: Tensor, heads: int) -> Tensor:
    """[batch seq heads·head_dim] -> [batch heads seq head_dim]"""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merged(heads: Tensor) -> Tensor:
    """[batch heads seq head_dim] -> [batch seq heads·head_dim]"""
    return heads.transpose(1, 2).flatten(2)
