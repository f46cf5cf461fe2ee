"""It puts itself in the place of the judge's layer.

Fools: a judge that looks its oracle up at each comparison.
"""

from tests.cheats._shared import wrong
from tests.judge.subject import FORMULA, REFERENCE


def silu(x):
    REFERENCE.silu = FORMULA.silu = wrong
    return wrong(x)
