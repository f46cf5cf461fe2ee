"""How rope is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.weights import frequencies, positions


def arguments(case: Case) -> Arguments:
    at = positions(case, "batch seq" if case.seed % 2 else "seq")
    return positional(case.normal("batch n_heads seq head_dim"), at, frequencies(case))


CALLS = Calls(
    "batch n_kv_heads groups seq half",
    arguments,
    gradients=(0,),
    batched={0: 1, 1: 2},
    turns=True,
    very_large=({"seq": 8_193}, {"batch": 8_192, "groups": 8}, {"seq": 257, "half": 129}),
)
