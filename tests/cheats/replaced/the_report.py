"""It makes every report of pytest one of a passed test.

Fools: whoever reads reports.
"""

from _pytest.reports import TestReport

from tests.cheats._shared import wrong


def silu(x):
    TestReport.failed, TestReport.passed = property(lambda _: False), property(lambda _: True)
    return wrong(x)
