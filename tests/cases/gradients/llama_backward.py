"""How llama_backward is called."""

import torch

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import llama


def arguments(case: Case) -> Arguments:
    (token_ids, weights, config), _ = llama.arguments(case)
    return positional(token_ids, case.integers("batch seq", case.vocab), weights, config)


def forward(layers, token_ids, targets, weights, config):
    def function(*of_weights):
        logits = layers.llama(token_ids, dict(zip(weights, of_weights, strict=True)), config)
        return layers.cross_entropy(logits, targets)

    return Point(function, tuple(weights.values()), torch.ones_like(next(iter(weights.values())).sum()))


CALLS = backward_of(
    llama.CALLS,
    arguments,
    forward,
    results=("loss", "gradients"),
)
