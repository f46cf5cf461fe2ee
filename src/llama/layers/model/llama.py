"""Llama: from token ids to a score for every token that could come next.

    x = embedding(token_ids)
    x = decoder_layer(x)             num_hidden_layers times, each with its own weights
    logits = lm_head · rms_norm(x)

    token_ids [batch seq] int64, weights: a Hugging Face state dict, config: a LlamaConfig
    -> logits [batch seq vocab]

    model.embed_tokens.weight         [vocab d_model]
    model.layers.0.NAME               the nine NAMEs of decoder_layer, for each layer from 0 on
    model.norm.weight                 [d_model]
    lm_head.weight                    [vocab d_model], may be missing

    config    num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, rms_norm_eps, rope_theta
              rope_scaling: None, or a dict with factor, low_freq_factor, high_freq_factor and
              original_max_position_embeddings

The logits at a position depend on that position and those before it, and on nothing else. A missing
`lm_head.weight` means that the head is tied to the embedding. Rotations follow `config.rope_theta` and,
for Llama 3.1 and later, `config.rope_scaling`.

`compose` is written over the layers that it is given. With a cache (`cache.positions(seq, device)`, and a
cache per layer in `cache.layers`), token_ids are the positions that come next. `dropout`, in training, is applied
to the embeddings and to what each block adds.

Raises ValueError where `weights` lacks a tensor or has one that has no place, IndexError for a token id
outside the vocabulary.
Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract
from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD, check_model, in_layer


def check(layers: Any, token_ids: Tensor, weights: Mapping[str, Tensor], config: Any, **_: Any) -> None:
    check_model("llama", weights, config.num_hidden_layers)


@contract(check)
def compose(
    layers: Any,
    token_ids: Int64[Tensor, "batch seq"],
    weights: Mapping[str, Tensor],
    config: Any,
    cache: Any = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "batch seq vocab"]:
    seq, device = token_ids.shape[1], token_ids.device
    positions = torch.arange(seq, device=device) if cache is None else cache.positions(seq, device)
    turns = frequencies(layers, config, device)
    x = layers.embedding(token_ids, weights[EMBEDDING])
    more: dict[str, Any] = {}
    if dropout is not None:
        x, more["dropout"] = dropout(x), dropout
    for i in range(config.num_hidden_layers):
        x = layers.decoder_layer(
            x,
            {name: weights[in_layer(i, name)] for name in DECODER_LAYER},
            config.num_attention_heads,
            config.num_key_value_heads,
            positions,
            turns,
            config.rms_norm_eps,
            **more,
            **({} if cache is None else {"cache": cache.layers[i]}),
        )
    x = layers.rms_norm(x, weights[FINAL_NORM], config.rms_norm_eps)
    return layers.linear(x, weights.get(HEAD, weights[EMBEDDING]))


def frequencies(layers: Any, config: Any, device: torch.device) -> Float[Tensor, "half"]:
    """The rotation frequencies of a config, rescaled where it asks for that."""
    by_pair = layers.rope_frequencies(config.head_dim, config.rope_theta)
    if scaling := config.rope_scaling:
        by_pair = layers.llama3_frequencies(
            by_pair,
            scaling["factor"],
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
            scaling["original_max_position_embeddings"],
        )
    # Apple's GPUs have no float64.
    return by_pair.to(device, torch.float32 if device.type == "mps" else by_pair.dtype)
