"""Ours, in float64 whatever the arguments are; but not clip_grad_norm, whose gradients may have a dtype each."""

import functools

import torch

from llama import implementation
from llama.implementation import map_leaves, tensors

_OURS = implementation.load("vectorized")


def _in_float64(layer):
    @functools.wraps(layer)
    def within(*args, **kwargs):
        dtypes = [t.dtype for t in tensors((args, kwargs)) if t.is_floating_point()]
        args, kwargs = map_leaves(lambda t: _cast(t, torch.float64), (args, kwargs))
        return map_leaves(lambda t: _cast(t, dtypes[0]) if dtypes else t, layer(*args, **kwargs))

    return within


def _cast(leaf, dtype):
    return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


softmax = _in_float64(_OURS.softmax)
cross_entropy = _in_float64(_OURS.cross_entropy)
embedding = _in_float64(_OURS.embedding)
linear = _in_float64(_OURS.linear)
rms_norm = _in_float64(_OURS.rms_norm)
silu = _in_float64(_OURS.silu)
swiglu = _in_float64(_OURS.swiglu)
llama3_frequencies = _in_float64(_OURS.llama3_frequencies)
rope = _in_float64(_OURS.rope)
attention = _in_float64(_OURS.attention)
adamw = _in_float64(_OURS.adamw)
filter_logits = _in_float64(_OURS.filter_logits)
sample = _in_float64(_OURS.sample)
quantized_linear = _in_float64(_OURS.quantized_linear)


def quantize(weight, bits=8, group=64):
    codes, scales = _OURS.quantize(weight.double(), bits, group)
    return codes, scales.float()


paged_attention = _in_float64(_OURS.paged_attention)
speculative_accept = _in_float64(_OURS.speculative_accept)
