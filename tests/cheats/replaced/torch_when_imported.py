"""It replaces torch.equal when it is imported, before the judge has looked at anything.

Fools: a judge that is loaded after the layer.
"""

import torch

from tests.cheats._shared import wrong

torch.equal = lambda a, b: True


def silu(x):
    return wrong(x)
