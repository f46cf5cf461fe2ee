"""How silu_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import silu


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq n"), case.normal("batch seq n", 3.0))


def forward(layers, grad, x):
    return Point(layers.silu, (x,), grad)


CALLS = backward_of(
    silu.CALLS,
    arguments,
    forward,
    results=("grad_x",),
    batched={0: 1, 1: 1},
    leading=(0, 1),
)
