"""How linear is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.normal("batch seq d_in"), case.normal("d_out d_in"))


CALLS = Calls("batch seq d_in d_out", arguments, gradients=(0, 1), batched={0: 1})
