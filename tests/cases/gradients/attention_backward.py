"""How attention_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of
from tests.cases.case import Case
from tests.cases.model import attention


def arguments(case: Case) -> Arguments:
    grad = case.upstream("batch n_heads q_len head_dim")
    args, kwargs = attention.arguments(case)
    return (grad, *args), kwargs


def forward(layers, grad, q, k, v, causal=True, mask=None):
    return Point(lambda q, k, v: layers.attention(q, k, v, causal, mask), (q, k, v), grad)


CALLS = backward_of(
    attention.CALLS,
    arguments,
    forward,
    results=("grad_q", "grad_k", "grad_v"),
    batched_results=(0, 1, 2),
    batched={0: 1, 1: 1, 2: 1, 3: 1, "mask": 4},
)
