"""How self_attention_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case
from tests.cases.model import self_attention


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_model"), *self_attention.arguments(case)[0])


def forward(layers, grad, x, w_q, w_k, w_v, w_o, *others):
    return Point(lambda *at: layers.self_attention(*at, *others), (x, w_q, w_k, w_v, w_o), grad)


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff",
    arguments,
    forward=forward,
    results=("grad_x", "grad_w_q", "grad_w_k", "grad_w_v", "grad_w_o"),
    batched={0: 1, 1: 1},
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"seq": 300}, {"seq": 129, "half": 33}, {"d_model": 1_025, "seq": 33}),
)
