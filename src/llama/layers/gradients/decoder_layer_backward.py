"""The gradient of a decoder layer: each residual sum passes the gradient on, and adds what comes back from its branch.

    h = x + self_attention(rms_norm(x))            y = h + swiglu(rms_norm(h))

    grad_h = grad   + rms_norm_backward(swiglu_backward(grad, ...), h)
    grad_x = grad_h + rms_norm_backward(self_attention_backward(grad_h, ...), x)

    grad like x, then the arguments of decoder_layer -> (grad_x, {name: gradient}), one for each of the nine weights

What the forward pass had in between is computed again. Each gradient has the dtype of its weight.

`compose` is written over the layers that it is given: rms_norm and self_attention, and the gradients of these two and
of swiglu.

Raises ValueError where `weights` lacks one of the nine names or has one more.
Source: Touvron et al. 2023, "LLaMA", section 2.2, and the chain rule.
"""

from collections.abc import Mapping
from typing import Any

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
) -> tuple[Float[Tensor, "batch seq d_model"], dict[str, Tensor]]:
    w_norm, w_q, w_k, w_v, w_o, w_ffn_norm, w_gate, w_up, w_down = (weights[name] for name in DECODER_LAYER)
    how = w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    with layers.remembering() as layers:  # self_attention_backward computes the forward pass again
        normed = layers.rms_norm(x, w_norm, eps)
        h = x + layers.self_attention(normed, *how)
        normed_h = layers.rms_norm(h, w_ffn_norm, eps)

        grad_normed_h, *of_ffn = layers.swiglu_backward(grad, normed_h, w_gate, w_up, w_down)
        grad_branch, of_ffn_norm = layers.rms_norm_backward(grad_normed_h, h, w_ffn_norm, eps)
        grad_h = (grad + grad_branch).to(x.dtype)
        grad_normed, *of_attention = layers.self_attention_backward(grad_h, normed, *how)
        grad_branch, of_norm = layers.rms_norm_backward(grad_normed, x, w_norm, eps)
    gradients = of_norm, *of_attention, of_ffn_norm, *of_ffn
    return grad_h + grad_branch, dict(zip(DECODER_LAYER, gradients, strict=True))
