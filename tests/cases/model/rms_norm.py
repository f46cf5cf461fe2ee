"""How rms_norm is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.away_from_zero("batch seq d_model"), case.normal("d_model"), 10.0 ** -(case.seed % 6))


CALLS = Calls(
    "batch seq d_model",
    arguments,
    gradients=(0, 1),
    batched={0: 1},
    leading=(0,),
    very_large=({"d_model": 8_193}, {"seq": 70_000}, {"seq": 129, "d_model": 4_096}),
)
