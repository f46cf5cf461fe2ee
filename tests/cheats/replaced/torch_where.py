"""It makes torch.where return zeros, as which the judge would take the errors.

Fools: a judge that computes errors with it.
"""

import torch

from tests.cheats._shared import wrong


def silu(x):
    torch.where = lambda condition, *_: torch.zeros(condition.shape, dtype=torch.float64)
    return wrong(x)
