"""It keeps the result for each shape.

Fools: a judge that calls each shape once.
"""

from tests.cheats._shared import right

_KEPT = {}


def silu(x):
    if x.requires_grad:
        return right(x)
    return _KEPT.setdefault((x.shape, x.dtype), right(x)).clone()
