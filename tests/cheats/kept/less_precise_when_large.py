"""It computes in half precision where a tensor is large.

Fools: a judge with small tensors, and a benchmark with large ones.
"""

import torch

from tests.cheats._shared import right


def silu(x):
    return right(x) if x.numel() < 1000 else right(x.to(torch.bfloat16)).to(x.dtype)
