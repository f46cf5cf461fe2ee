"""It replaces the function of the judge that compares values.

Fools: a judge that can be imported.
"""

import tests.judge.assertions
from tests.cheats._shared import wrong


def silu(x):
    tests.judge.assertions._compare_values = lambda *_: None
    return wrong(x)
