"""How bpe_encode is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.words import merges, word


def arguments(case: Case) -> Arguments:
    return positional(word(case, case.seq), merges(case, case.n))


# Of one letter, of two and of three, and as long as naive layers can read.
CALLS = Calls("seq n", arguments, very_large=({"seq": 5_001}, {"seq": 9_001}, {"seq": 9_001, "n": 12}))
