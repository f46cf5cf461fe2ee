"""How linear_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_out"), case.normal("batch seq d_in"), case.normal("d_out d_in"))


def forward(layers, grad, x, weight):
    return Point(layers.linear, (x, weight), grad)


CALLS = Calls(
    "batch seq d_in d_out",
    arguments,
    forward=forward,
    results=("grad_x", "grad_weight"),
    batched={0: 1, 1: 1},
    multiplies=True,
    leading=(0, 1),
    very_large=({"d_in": 8_193}, {"d_out": 70_000}, {"seq": 70_000}, {"seq": 129, "d_in": 1_025, "d_out": 65}),
)
