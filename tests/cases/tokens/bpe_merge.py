"""How bpe_merge is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.words import numbers


def arguments(case: Case) -> Arguments:
    """Of few ids, so that the pair occurs; it may be of one id twice, and of ids that are not there."""
    kinds = min(case.n, 3)
    left, right = numbers(case, 2, kinds)
    return positional(numbers(case, case.seq, kinds), (left if case.seed % 3 else right, right), 256 + case.n)


CALLS = Calls("seq n", arguments, very_large=({"seq": 70_000},))
