"""How swiglu_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case
from tests.cases.weights import weight


def arguments(case: Case) -> Arguments:
    grad, x = case.upstream("batch seq d_model"), case.normal("batch seq d_model")
    weights = (weight(case, case.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff"))
    return positional(grad, x, *weights)


def forward(layers, grad, *arguments):
    return Point(layers.swiglu, arguments, grad)


CALLS = Calls(
    "batch seq d_model d_ff",
    arguments,
    forward=forward,
    results=("grad_x", "grad_gate", "grad_up", "grad_down"),
    batched={0: 1, 1: 1},
    rounds_within=True,
    multiplies=True,
    leading=(0, 1),
    very_large=({"d_ff": 8_193}, {"seq": 70_000}, {"d_model": 1_025, "d_ff": 257}),
)
