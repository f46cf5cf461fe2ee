"""The gradients by torch.func.vjp of our own forward layers, which a learner has too."""

import torch

from llama import implementation
from tests.peers.formulas._shared import check_ids

_LAYERS = implementation.load("vectorized").unchecked()


def _pulled_back(function, grad, *arguments):
    out, pull = torch.func.vjp(function, *(argument.detach() for argument in arguments))
    return pull(grad.detach().to(out.dtype))


def rope_backward(grad, positions, frequencies):
    return _pulled_back(lambda x: _LAYERS.rope(x, positions, frequencies), grad, torch.zeros_like(grad))[0]


def self_attention_backward(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    def layer(*arguments):
        return _LAYERS.self_attention(*arguments, n_heads, n_kv_heads, positions, frequencies)

    return _pulled_back(layer, grad, x, w_q, w_k, w_v, w_o)


def decoder_layer_backward(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    def layer(x, *values):
        named = dict(zip(weights, values, strict=True))
        return _LAYERS.decoder_layer(x, named, n_heads, n_kv_heads, positions, frequencies, eps)

    grad_x, *of_weights = _pulled_back(layer, grad, x, *weights.values())
    return grad_x, dict(zip(weights, of_weights, strict=True))


def llama_backward(token_ids, targets, weights, config):
    for ids in (token_ids, targets):
        check_ids(ids, weights["model.embed_tokens.weight"])

    def loss(*values):
        logits = _LAYERS.llama(token_ids, dict(zip(weights, values, strict=True)), config)
        return _LAYERS.cross_entropy(logits, targets)

    found, pull = torch.func.vjp(loss, *(weight.detach() for weight in weights.values()))
    return found, dict(zip(weights, pull(torch.ones_like(found)), strict=True))
