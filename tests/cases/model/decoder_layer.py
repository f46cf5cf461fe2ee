"""How decoder_layer is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case
from tests.cases.weights import frequencies, layer_weights, positions


def arguments(case: Case) -> Arguments:
    x, eps = case.away_from_zero("batch seq d_model"), 10.0 ** -(case.seed % 5)
    heads = case.n_heads, case.n_kv_heads
    return (x, layer_weights(case), *heads, positions(case, "seq"), frequencies(case)), {"eps": eps}


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff",
    arguments,
    gradients=(0, 1),
    batched={0: 1},
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"seq": 257}, {"d_model": 513, "d_ff": 1_025}),
)
