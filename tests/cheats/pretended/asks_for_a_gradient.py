"""Its result is detached, and then told to ask for a gradient.

Fools: a judge that only looks at requires_grad.
"""

from tests.cheats._shared import right


def silu(x):
    return right(x).detach().requires_grad_(x.requires_grad)
