"""How llama_backward is called."""

import torch

from tests.cases.calls import Arguments, Calls, Point, positional
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


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff vocab n_layers",
    arguments,
    forward=forward,
    results=("loss", "gradients"),
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"vocab": 70_000}, {"seq": 257}, {"n_layers": 11}),
)
