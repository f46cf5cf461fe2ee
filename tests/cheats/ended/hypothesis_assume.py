"""It rejects each example that is drawn for it.

Fools: a property that no example is left for.
"""

import hypothesis


def silu(x):
    hypothesis.assume(False)
