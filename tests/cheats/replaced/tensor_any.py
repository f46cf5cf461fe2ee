"""It makes Tensor.any say that nothing is wrong.

Fools: a judge that asks whether any element is wrong.
"""

import torch

from tests.cheats._shared import wrong


def silu(x):
    torch.Tensor.any = lambda *_, **__: torch.tensor(False)
    return wrong(x)
