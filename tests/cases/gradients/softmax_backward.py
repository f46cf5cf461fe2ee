"""How softmax_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import softmax


def arguments(case: Case) -> Arguments:
    y = case.normal("batch seq n", 2.0).double().softmax(dim=-1).to(case.dtype)
    return positional(case.upstream("batch seq n"), case.laid_out(y))


def forward(layers, grad, y):
    return Point(layers.softmax, (y.log(),), grad)


CALLS = backward_of(
    softmax.CALLS,
    arguments,
    forward,
    results=("grad_x",),
    batched={0: 1, 1: 1},
    leading=(0, 1),
)
