"""It writes all results of a shape into the same memory.

Fools: a judge that is done with a result before the next call.
"""

import torch

from tests.cheats._shared import right

_BUFFERS = {}


def silu(x):
    if x.requires_grad:
        return right(x)
    key = x.shape, x.dtype, torch.is_inference_mode_enabled()
    return _BUFFERS.setdefault(key, torch.empty_like(x)).copy_(right(x))
