"""It writes to the tests: the next run will be green.

Fools: a judge that lies where code of others can write.
"""

from pathlib import Path

import tests.judge.tolerances
from tests.cheats._shared import wrong


def silu(x):
    with Path(tests.judge.tolerances.__file__).open("a") as file:
        file.write("HALF = ()\n")
    return wrong(x)
