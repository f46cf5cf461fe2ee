"""It makes a mismatch no error but a skip.

Fools: a judge that raises what can be replaced.
"""

import pytest

import tests.judge.assertions
from tests.cheats._shared import wrong


def silu(x):
    tests.judge.assertions.Mismatch = pytest.skip.Exception
    return wrong(x)
