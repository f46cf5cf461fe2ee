"""It tells Hypothesis to run no example.

Fools: a property that never ran, and is therefore green.
"""

import hypothesis

from tests.cheats._shared import wrong


def _nothing(*_, **__):
    return lambda test: lambda *_, **__: None


hypothesis.given = _nothing


def silu(x):
    return wrong(x)
