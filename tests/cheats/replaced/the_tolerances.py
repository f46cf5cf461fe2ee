"""It widens the table of tolerances.

Fools: a judge whose tolerances can be written to.
"""

from tests.cheats._shared import wrong
from tests.judge.tolerances import TOLERANCES


def silu(x):
    TOLERANCES.update(dict.fromkeys(TOLERANCES, 1e9))
    return wrong(x)
