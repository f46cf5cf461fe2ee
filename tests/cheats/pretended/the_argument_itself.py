"""It writes the result over its argument through `.data`, and returns that.

Fools: a judge that trusts torch's counter of writes.
"""

from tests.cheats._shared import right


def silu(x):
    x.data.copy_(right(x.detach()))
    return x
