"""It gives the function of the judge that compares values other code.

Fools: a judge that checks that its functions are the same objects.
"""

import tests.judge.assertions
from tests.cheats._shared import wrong


def silu(x):
    tests.judge.assertions._compare.__code__ = (lambda *_, **__: None).__code__
    return wrong(x)
