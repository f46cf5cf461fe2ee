"""How bpe_train is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.words import words


def arguments(case: Case) -> Arguments:
    return positional(words(case, case.count, case.seq), 256 + case.n)


CALLS = Calls("count seq n", arguments, very_large=({"count": 2_000, "n": 50}, {"seq": 5_000}))
