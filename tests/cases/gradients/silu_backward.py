"""How silu_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq n"), case.normal("batch seq n", 3.0))


def forward(layers, grad, x):
    return Point(layers.silu, (x,), grad)


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000},
    {"seq": 70_000},
)
CALLS = Calls(
    "batch seq n",
    arguments,
    forward=forward,
    results=("grad_x",),
    batched={0: 1, 1: 1},
    leading=(0, 1),
    very_large=VERY_LARGE,
)
