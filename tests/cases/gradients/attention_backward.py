"""How attention_backward is called."""

from tests.cases.calls import Arguments, Calls, Point
from tests.cases.case import Case
from tests.cases.model import attention


def arguments(case: Case) -> Arguments:
    grad = case.upstream("batch n_heads q_len head_dim")
    args, kwargs = attention.arguments(case)
    return (grad, *args), kwargs


def forward(layers, grad, q, k, v, causal=True, mask=None):
    return Point(lambda q, k, v: layers.attention(q, k, v, causal, mask), (q, k, v), grad)


CALLS = Calls(
    "batch n_kv_heads groups q_len more half",
    arguments,
    forward=forward,
    results=("grad_q", "grad_k", "grad_v"),
    batched_results=(0, 1, 2),
    batched={0: 1, 1: 1, 2: 1, 3: 1, "mask": 4},
    multiplies=True,
    very_large=(
        {"q_len": 2, "more": 4_095},
        {"q_len": 1, "more": 8_191},
        {"q_len": 300, "more": 0},
        {"q_len": 129, "more": 128, "half": 65},
        {"batch": 8_192, "groups": 4},
    ),
)
