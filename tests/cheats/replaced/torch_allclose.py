"""It makes torch.allclose and torch.isclose content with anything.

Fools: a judge that compares with them.
"""

import torch

from tests.cheats._shared import wrong


def silu(x):
    torch.allclose = torch.isclose = lambda *_, **__: True
    return wrong(x)
