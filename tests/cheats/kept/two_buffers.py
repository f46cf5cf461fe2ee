"""It writes results into two buffers in turn.

Fools: a judge that compares a result with the one before it.
"""

import itertools

import torch

from tests.cheats._shared import right

_BUFFERS = {}
_TURN = itertools.cycle((0, 1))


def silu(x):
    if x.requires_grad:
        return right(x)
    key = next(_TURN), x.shape, x.dtype, torch.is_inference_mode_enabled()
    return _BUFFERS.setdefault(key, torch.empty_like(x)).copy_(right(x))
