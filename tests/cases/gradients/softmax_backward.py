"""How softmax_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    y = case.normal("batch seq n", 2.0).double().softmax(dim=-1).to(case.dtype)
    return positional(case.upstream("batch seq n"), case.laid_out(y))


def forward(layers, grad, y):
    return Point(layers.softmax, (y.log(),), grad)


CALLS = Calls(
    "batch seq n",
    arguments,
    forward=forward,
    results=("grad_x",),
    batched={0: 1, 1: 1},
    leading=(0, 1),
    very_large=({"n": 70_000}, {"seq": 70_000}, {"seq": 129, "n": 4_097}),
)
