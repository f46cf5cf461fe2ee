"""How cosine_schedule is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.seed % 30, 0.5, case.seq, case.seq + case.n, 0.125)


CALLS = Calls("n seq", arguments, number="out")
