"""It makes torch.equal say that all is equal.

Fools: a judge that compares with it.
"""

import torch

from tests.cheats._shared import wrong


def silu(x):
    torch.equal = lambda a, b: True
    return wrong(x)
