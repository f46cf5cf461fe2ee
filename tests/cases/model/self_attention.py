"""How self_attention is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case
from tests.cases.weights import frequencies, layer_weights, positions


def arguments(case: Case) -> Arguments:
    w = layer_weights(case)
    projections = [w[f"self_attn.{name}_proj.weight"] for name in "qkvo"]
    x = case.normal("batch seq d_model")
    return positional(x, *projections, case.n_heads, case.n_kv_heads, positions(case, "seq"), frequencies(case))


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff",
    arguments,
    gradients=(0, 1, 2, 3, 4),
    batched={0: 1},
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"seq": 300}, {"seq": 129, "half": 33}, {"d_model": 1_025, "seq": 33}),
)
