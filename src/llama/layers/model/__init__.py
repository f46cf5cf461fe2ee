"""The forward pass, from a row of scores to the whole model. Read it in the order of `llama.layers.CHAPTERS`."""

import functools

import torch
from torch import Tensor

CACHED = 2**18
"""As many float32 numbers as a core's own cache holds (1 MB): what is computed in parts has so many in each."""


def wide(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: that of the widest of these, and at least float32."""
    return functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
