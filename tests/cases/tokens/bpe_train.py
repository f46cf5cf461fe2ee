"""How bpe_train is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.words import words


def arguments(case: Case) -> Arguments:
    return positional(words(case, case.count, case.seq), 256 + case.n)


CALLS = Calls(
    "count seq n",
    arguments,
    # The first words are of one letter, the next of two and of three: among short ones few would be different.
    very_large=({"seq": 5_000}, {"count": 3_000, "seq": 14, "n": 20}, {"seq": 1_500, "n": 1_000}),
)
