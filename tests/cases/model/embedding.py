"""How embedding is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.integers("batch seq", case.vocab), case.normal("vocab d_model"))


CALLS = Calls(
    "batch seq vocab d_model",
    arguments,
    gradients=(1,),
    batched={0: 1},
    leading=(0,),
    very_large=({"vocab": 70_000}, {"seq": 70_000}, {"seq": 5_000, "vocab": 1}, {"seq": 257, "d_model": 1_025}),
)
