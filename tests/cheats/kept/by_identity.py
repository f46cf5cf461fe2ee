"""It keeps the result for each object, though its contents may change.

Fools: a judge that makes new tensors for each call.
"""

from tests.cheats._shared import right

_KEPT = {}


def silu(x):
    if x.requires_grad:
        return right(x)
    if id(x) not in _KEPT:
        _KEPT[id(x)] = x, right(x)
    return _KEPT[id(x)][1].clone()
