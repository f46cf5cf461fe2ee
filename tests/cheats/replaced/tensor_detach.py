"""It makes every detached tensor a zero.

Fools: a judge that detaches before it compares.
"""

import torch

from tests.cheats._shared import wrong


def silu(x):
    torch.Tensor.detach = lambda t: torch.zeros(t.shape, dtype=t.dtype)
    return wrong(x)
