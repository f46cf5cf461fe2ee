"""How silu is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.normal("batch seq n", 3.0))


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000},
    {"seq": 70_000},
)
CALLS = Calls("batch seq n", arguments, gradients=(0,), batched={0: 1}, leading=(0,), very_large=VERY_LARGE)
