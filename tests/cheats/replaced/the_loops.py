"""It replaces the loops in the file of our own layer.

Fools: an oracle that is looked up in its module.
"""

from llama.layers.model import silu as module
from tests.cheats._shared import wrong


def silu(x):
    module.naive = module.vectorized = wrong
    return wrong(x)
