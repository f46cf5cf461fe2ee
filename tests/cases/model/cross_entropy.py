"""How cross_entropy is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab))


CALLS = Calls(
    "batch seq vocab",
    arguments,
    gradients=(0,),
    leading=(0, 1),
    very_large=({"vocab": 70_000}, {"seq": 70_000}, {"seq": 129, "vocab": 8_193}),
)
