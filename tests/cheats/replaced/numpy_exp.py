"""It makes the exponential zero, so that the loops compute something else too.

Fools: an oracle that uses NumPy.
"""

import math

import numpy as np

from tests.cheats._shared import wrong


def silu(x):
    math.exp = np.exp = lambda x: 0.0 * x
    return wrong(x)
