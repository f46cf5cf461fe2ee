"""The gradient of a decoder layer: each residual sum passes the gradient on, and adds what comes back from its branch.

    h = x + self_attention(rms_norm(x))            y = h + swiglu(rms_norm(h))

    grad_h = grad   + rms_norm_backward(swiglu_backward(grad, ...), h)
    grad_x = grad_h + rms_norm_backward(self_attention_backward(grad_h, ...), x)

    grad like x, then the arguments of decoder_layer -> (grad_x, {name: gradient}), one for each of the nine weights

The names are those of decoder_layer:

    input_layernorm.weight   self_attn.q_proj.weight   self_attn.k_proj.weight   self_attn.v_proj.weight
    self_attn.o_proj.weight   post_attention_layernorm.weight
    mlp.gate_proj.weight   mlp.up_proj.weight   mlp.down_proj.weight

Each gradient has the dtype of its weight.

`compose` is written over the layers that it is given: rms_norm and self_attention, and the gradients of these two and
of swiglu. `forward` is the layer itself, which keeps what `compose` would compute again.

Raises ValueError where `weights` lacks one of the nine names or has one more.
Source: Touvron et al. 2023, "LLaMA", section 2.2, and the chain rule.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract
from llama.contract.weights import DECODER_LAYER, check_decoder_layer

GRADIENTS = ("x", "weights")


def check(layers: Any, grad: Tensor, x: Tensor, weights: Mapping[str, Tensor], *_: Any, **__: Any) -> None:
    check_decoder_layer("decoder_layer_backward", weights)


@contract(check)
@torch.no_grad()
def compose(
    layers: Any,
    grad: Float[Tensor, "batch seq d_model"],
    x: Float[Tensor, "batch seq d_model"],
    weights: Mapping[str, Tensor],
    n_heads: int,
    n_kv_heads: int,
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "half"],
    eps: float = 1e-5,
    kept: Any = None,
) -> tuple[Float[Tensor, "batch seq d_model"], dict[str, Tensor]]:
    w_norm, w_q, w_k, w_v, w_o, w_ffn_norm, w_gate, w_up, w_down = (weights[name] for name in DECODER_LAYER)
    how = n_heads, n_kv_heads, positions, frequencies, eps
    normed, of_heads, h, normed_h, of_hidden = kept or _inner(layers, x, weights, *how)
    grad_normed_h, *of_ffn = layers.swiglu_backward(grad, normed_h, w_gate, w_up, w_down, **of_hidden)
    grad_h, of_ffn_norm = layers.rms_norm_backward(grad_normed_h, h, w_ffn_norm, eps)
    grad_h += grad
    heads = w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    grad_normed, *of_attention = layers.self_attention_backward(grad_h, normed, *heads, **of_heads)
    grad_x, of_norm = layers.rms_norm_backward(grad_normed, x, w_norm, eps)
    grad_x += grad_h
    gradients = of_norm, *of_attention, of_ffn_norm, *of_ffn
    return grad_x, dict(zip(DECODER_LAYER, gradients, strict=True))


def forward(layers: Any, x: Tensor, weights: Mapping[str, Tensor], *how: Any) -> tuple[Tensor, dict[str, Any]]:
    kept = _inner(layers, x, weights, *how)
    *_, w_gate, w_up, w_down = (weights[name] for name in DECODER_LAYER)
    y, more = layers.keeping("swiglu")(kept.normed_h, w_gate, w_up, w_down)
    return kept.h + y, {"kept": kept._replace(of_hidden=more)}


class _Kept(NamedTuple):
    """What the blocks were given, and what they keep themselves."""

    normed: Float[Tensor, "batch seq d_model"]
    of_heads: dict[str, Any]
    h: Float[Tensor, "batch seq d_model"]
    normed_h: Float[Tensor, "batch seq d_model"]
    of_hidden: dict[str, Any]


def _inner(
    layers: Any,
    x: Tensor,
    weights: Mapping[str, Tensor],
    n_heads: int,
    n_kv_heads: int,
    positions: Tensor,
    frequencies: Tensor,
    eps: float,
) -> _Kept:
    """As far as swiglu, which need not be computed for its gradient."""
    w_norm, *projections, w_ffn_norm, _, _, _ = (weights[name] for name in DECODER_LAYER)
    normed = layers.rms_norm(x, w_norm, eps)
    heads = n_heads, n_kv_heads, positions, frequencies
    attended, of_heads = layers.keeping("self_attention")(normed, *projections, *heads)
    h = x + attended
    return _Kept(normed, of_heads, h, layers.rms_norm(h, w_ffn_norm, eps), {})
