"""How bpe_decode is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.words import merges, numbers


def arguments(case: Case) -> Arguments:
    """Of bytes at both ends, letters, and all ids that are made."""
    learned = merges(case, case.n)
    known = [0, 97, 98, 255, *range(256, 256 + len(learned))]
    return positional([known[i] for i in numbers(case, case.seq, len(known))], learned)


CALLS = Calls("seq n", arguments, very_large=({"seq": 70_000},))
