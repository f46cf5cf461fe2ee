"""How rope_frequencies is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.head_dim, 10.0 ** (1 + case.seed % 6))


VERY_LARGE: tuple[dict[str, int], ...] = ({"half": 4_097},)
CALLS = Calls("half", arguments, very_large=VERY_LARGE)
