"""How llama3_frequencies is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(10 ** case.uniform("half", -4, 0), 4.0, 0.5, 3.0, 2048)


VERY_LARGE: tuple[dict[str, int], ...] = ({"half": 4_097},)
CALLS = Calls("half", arguments, very_large=VERY_LARGE)
