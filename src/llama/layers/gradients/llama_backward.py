"""The gradient of Llama: the forward pass, its loss, and every gradient, from the head back to the embedding.

    x_0 = embedding(token_ids)     x_i+1 = decoder_layer(x_i)     logits = head · rms_norm(x_n)
    loss = cross_entropy(logits, targets)

    token_ids [batch seq] int64, targets [batch seq] int64, weights: a Hugging Face state dict, config: a LlamaConfig
    -> (loss [], {name: gradient}), one for each name of `weights`

    model.embed_tokens.weight         [vocab d_model]
    model.layers.0.NAME               the nine NAMEs of decoder_layer, for each layer from 0 on
    model.norm.weight                 [d_model]
    lm_head.weight                    [vocab d_model], may be missing

    config    num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, rms_norm_eps, rope_theta
              rope_scaling: None, or a dict with factor, low_freq_factor, high_freq_factor and
              original_max_position_embeddings

The positions are 0 to seq - 1. The targets are those of the same positions: nothing is shifted here. The loss has the
dtype of the logits, and each gradient that of its weight. Where `lm_head.weight` is missing the head is tied: the
embedding is used twice, and both gradients add up under `model.embed_tokens.weight`.

`compose` is written over the layers that it is given: embedding, decoder_layer, rms_norm, linear and cross_entropy, and
the gradients of all five. What each decoder layer was given is kept until its gradient is taken.

Raises ValueError where `weights` lacks a tensor or has one that has no place, and where there is no token; IndexError
for a token id or a target outside the vocabulary.
Source: Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors".
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import contract
from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD, check_model, in_layer
from llama.layers.model import llama

GRADIENTS = ("weights",)  # after the loss


def check(
    layers: Any, token_ids: Tensor, targets: Tensor, weights: Mapping[str, Tensor], config: Any, **_: Any
) -> None:
    check_model("llama_backward", weights, config.num_hidden_layers)


@contract(check)
@torch.no_grad()
def compose(
    layers: Any,
    token_ids: Int64[Tensor, "batch seq"],
    targets: Int64[Tensor, "batch seq"],
    weights: Mapping[str, Tensor],
    config: Any,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    eps, head = config.rms_norm_eps, weights.get(HEAD, weights[EMBEDDING])
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    turns = llama.frequencies(layers, config, token_ids.device)
    how = config.num_attention_heads, config.num_key_value_heads, positions, turns, eps
    within = [{name: weights[in_layer(i, name)] for name in DECODER_LAYER} for i in range(config.num_hidden_layers)]
    keeping = layers.keeping("decoder_layer")
    xs, kept = [layers.embedding(token_ids, weights[EMBEDDING])], []
    for of_layer in within:
        x, more = keeping(xs[-1], of_layer, *how)
        xs.append(x)
        kept.append(more)
    normed = layers.rms_norm(xs[-1], weights[FINAL_NORM], eps)
    logits = layers.linear(normed, head)
    loss = layers.cross_entropy(logits, targets)

    found: dict[str, Tensor] = {}
    grad = layers.cross_entropy_backward(torch.ones_like(loss), logits, targets)
    grad, found[HEAD] = layers.linear_backward(grad, normed, head)
    grad, found[FINAL_NORM] = layers.rms_norm_backward(grad, xs.pop(), weights[FINAL_NORM], eps)
    for i in reversed(range(config.num_hidden_layers)):
        grad, of_layer = layers.decoder_layer_backward(grad, xs.pop(), within[i], *how, **kept.pop())
        found |= {in_layer(i, name): gradient for name, gradient in of_layer.items()}
    found[EMBEDDING] = layers.embedding_backward(grad, token_ids, len(weights[EMBEDDING]))
    if HEAD not in weights:
        found[EMBEDDING] += found.pop(HEAD)
    return loss, {name: found[name] for name in weights}
