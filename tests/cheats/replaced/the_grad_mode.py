"""It leaves torch without gradients.

Fools: a judge that would compare no gradients then.
"""

import torch

from tests.cheats._shared import right


def silu(x):
    torch.set_grad_enabled(False)
    return right(x)
