"""How self_attention_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import self_attention


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_model"), *self_attention.arguments(case)[0])


def forward(layers, grad, x, w_q, w_k, w_v, w_o, *others):
    return Point(lambda *at: layers.self_attention(*at, *others), (x, w_q, w_k, w_v, w_o), grad)


CALLS = backward_of(
    self_attention.CALLS,
    arguments,
    forward,
    results=("grad_x", "grad_w_q", "grad_w_k", "grad_w_v", "grad_w_o"),
    batched={0: 1, 1: 1},
)
