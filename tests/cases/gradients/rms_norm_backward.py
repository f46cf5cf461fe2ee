"""How rms_norm_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import rms_norm


def arguments(case: Case) -> Arguments:
    grad, x = case.upstream("batch seq d_model"), case.away_from_zero("batch seq d_model")
    return positional(grad, x, case.normal("d_model"), 10.0 ** -(case.seed % 6))


def forward(layers, grad, x, weight, eps=1e-5):
    return Point(lambda x, weight: layers.rms_norm(x, weight, eps), (x, weight), grad)


CALLS = backward_of(
    rms_norm.CALLS,
    arguments,
    forward,
    results=("grad_x", "grad_weight"),
    batched={0: 1, 1: 1},
    leading=(0, 1),
)
