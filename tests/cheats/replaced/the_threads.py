"""It leaves torch with another number of threads.

Fools: a benchmark that measures others beside it.
"""

import torch

from tests.cheats._shared import right


def silu(x):
    torch.set_num_threads(2)
    return right(x)
