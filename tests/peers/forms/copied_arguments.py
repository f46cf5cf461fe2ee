"""Ours, over contiguous copies of all arguments."""

import functools

import torch

from llama import implementation
from llama.implementation import map_leaves

_OURS = implementation.load("vectorized")


def _copied(layer):
    @functools.wraps(layer)
    def call(*args, **kwargs):
        args, kwargs = map_leaves(
            lambda leaf: leaf.clone(memory_format=torch.contiguous_format) if isinstance(leaf, torch.Tensor) else leaf,
            (args, kwargs),
        )
        return layer(*args, **kwargs)

    return call


linear = _copied(_OURS.linear)
silu = _copied(_OURS.silu)
rope = _copied(_OURS.rope)
attention = _copied(_OURS.attention)
adamw = _copied(_OURS.adamw)
filter_logits = _copied(_OURS.filter_logits)
merge_attention = _copied(_OURS.merge_attention)


quantize = _copied(_OURS.quantize)
quantized_linear = _copied(_OURS.quantized_linear)
