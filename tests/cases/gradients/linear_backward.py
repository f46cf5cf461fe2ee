"""How linear_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import linear


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_out"), case.normal("batch seq d_in"), case.normal("d_out d_in"))


def forward(layers, grad, x, weight):
    return Point(layers.linear, (x, weight), grad)


CALLS = backward_of(
    linear.CALLS,
    arguments,
    forward,
    results=("grad_x", "grad_weight"),
    batched={0: 1, 1: 1},
    leading=(0, 1),
)
