"""How swiglu_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import swiglu
from tests.cases.weights import weight


def arguments(case: Case) -> Arguments:
    grad, x = case.upstream("batch seq d_model"), case.normal("batch seq d_model")
    weights = (weight(case, case.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff"))
    return positional(grad, x, *weights)


def forward(layers, grad, *arguments):
    return Point(layers.swiglu, arguments, grad)


CALLS = backward_of(
    swiglu.CALLS,
    arguments,
    forward,
    results=("grad_x", "grad_gate", "grad_up", "grad_down"),
    batched={0: 1, 1: 1},
    leading=(0, 1),
)
