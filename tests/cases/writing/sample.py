"""How sample is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.normal("batch seq n"), case.uniform("batch seq", 0.0, 0.99))


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000},
    {"seq": 70_000},
)
CALLS = Calls("batch seq n", arguments, batched={0: 1, 1: 1}, leading=(0, 1), very_large=VERY_LARGE)
