"""Sampling: the cumulative probabilities of a row, and the place of a number in them. torch draws it itself."""

import torch

from benchmarks.cases import layer


def multinomial(logits, u):
    return lambda: torch.multinomial(logits.softmax(-1), 1)


bench_sample = layer(
    "sample",
    along="n",
    sizes=(64, 1024, 8192, 131072),
    others={"batch": 1, "seq": 64},
    moved=lambda c: c.seq * c.n,
    naive=1024,
    peers={"torch": lambda logits, u: multinomial(logits[0], u)},
)
