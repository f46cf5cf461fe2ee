"""How swiglu is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.weights import weight


def arguments(case: Case) -> Arguments:
    x = case.normal("batch seq d_model")
    return positional(x, *(weight(case, case.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff")))


CALLS = Calls(
    "batch seq d_model d_ff",
    arguments,
    gradients=(0, 1, 2, 3),
    batched={0: 1},
    rounds_within=True,
    multiplies=True,
    leading=(0,),
    very_large=({"d_ff": 8_193}, {"seq": 70_000}, {"d_model": 1_025, "d_ff": 257}),
)
