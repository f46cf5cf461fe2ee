"""Decoder layer: attention between tokens, then a feed-forward block within each, both residual.

    h = x + self_attention(rms_norm(x))
    y = h + swiglu(rms_norm(h))

    x [batch seq d_model], weights: the nine tensors of one Hugging Face layer by name,
    positions [seq] or [batch seq] int64, frequencies [head_dim/2], eps -> like x

    input_layernorm.weight            [d_model]                     before self_attention
    self_attn.q_proj.weight           [n_heads·head_dim d_model]
    self_attn.k_proj.weight           [n_kv_heads·head_dim d_model]
    self_attn.v_proj.weight           [n_kv_heads·head_dim d_model]
    self_attn.o_proj.weight           [d_model n_heads·head_dim]
    post_attention_layernorm.weight   [d_model]                     before swiglu
    mlp.gate_proj.weight              [d_ff d_model]
    mlp.up_proj.weight                [d_ff d_model]
    mlp.down_proj.weight              [d_model d_ff]

Pre-norm: what is added to is x itself, not the normalised x. The two norms have a weight each and the
same eps. With both output projections zero the layer is the identity. The result has the dtype of x; positions
and frequencies keep theirs.

`compose` is written over the layers that it is given: `layers.rms_norm`, `layers.self_attention`,
`layers.swiglu`. `cache` is handed on to self_attention; `dropout` is applied to what each block adds, in training.

Raises ValueError where `weights` lacks one of the nine names or has one more (a bias, say).
Source: Touvron et al. 2023, "LLaMA", section 2.2; Xiong et al. 2020 for the place of the norm.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract
from llama.contract.weights import DECODER_LAYER, check_decoder_layer


def _all(x: Tensor) -> Tensor:
    """Drops nothing."""
    return x


def check(layers: Any, x: Tensor, weights: Mapping[str, Tensor], *_: Any, **__: Any) -> None:
    check_decoder_layer("decoder_layer", weights)


@contract(check)
def compose(
    layers: Any,
    x: Float[Tensor, "batch seq d_model"],
    weights: Mapping[str, Tensor],
    n_heads: int,
    n_kv_heads: int,
    positions: Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"],
    frequencies: Float[Tensor, "half"],
    eps: float = 1e-5,
    cache: Any = None,
    dropout: Callable[[Tensor], Tensor] = _all,
) -> Float[Tensor, "batch seq d_model"]:
    w_norm, w_q, w_k, w_v, w_o, w_ffn_norm, w_gate, w_up, w_down = (weights[name] for name in DECODER_LAYER)
    normed = layers.rms_norm(x, w_norm, eps)
    cached = {} if cache is None else {"cache": cache}
    attended = layers.self_attention(normed, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies, **cached)
    x = x + dropout(attended)
    return x + dropout(layers.swiglu(layers.rms_norm(x, w_ffn_norm, eps), w_gate, w_up, w_down))
