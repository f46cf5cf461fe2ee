"""How rope_backward is called."""

import torch

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import rope
from tests.cases.weights import frequencies, positions


def arguments(case: Case) -> Arguments:
    at = positions(case, "batch seq" if case.seed % 2 else "seq")
    return positional(case.upstream("batch n_heads seq head_dim"), at, frequencies(case))


def forward(layers, grad, positions, frequencies):
    x = torch.zeros_like(grad)  # any: the layer is linear in it
    return Point(lambda x: layers.rope(x, positions, frequencies), (x,), grad)


CALLS = backward_of(
    rope.CALLS,
    arguments,
    forward,
    results=("grad_x",),
    batched={0: 1, 1: 2},
)
