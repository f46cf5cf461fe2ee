"""How linear is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.normal("batch seq d_in"), case.normal("d_out d_in"))


CALLS = Calls(
    "batch seq d_in d_out",
    arguments,
    gradients=(0, 1),
    batched={0: 1},
    multiplies=True,
    leading=(0,),
    very_large=({"d_in": 8_193}, {"d_out": 70_000}, {"seq": 70_000}, {"seq": 129, "d_in": 1_025, "d_out": 65}),
)
