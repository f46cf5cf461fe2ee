"""It leaves torch with another default dtype.

Fools: a judge that makes tensors without saying in which dtype.
"""

import torch

from tests.cheats._shared import right


def silu(x):
    torch.set_default_dtype(torch.float16)
    return right(x)
