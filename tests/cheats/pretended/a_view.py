"""It returns the argument where SiLU is nearly the identity.

Fools: a judge that looks at values alone: whoever writes to the result changes the argument.
"""

from tests.cheats._shared import right


def silu(x):
    return x.view(x.shape) if x.numel() and x.min() > 100 else right(x)
