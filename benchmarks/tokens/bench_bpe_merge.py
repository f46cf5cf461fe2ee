"""One merge over a list of ids: each is read once."""

import torch

from benchmarks.cases import layer

KINDS = 100


def arguments(case):
    """Of so many kinds of ids, one of which in a hundred begins a pair."""
    return ([int(i) for i in case.integers([case.seq], KINDS)], (1, 2), KINDS), {}


bench_bpe_merge = layer(
    "bpe_merge",
    along="seq",
    sizes=(16, 256, 4096, 65536),
    others={"n": 3},
    moved=lambda c: c.seq / torch.int64.itemsize,  # bytes of text
    naive=65536,
    arguments=arguments,
    dtypes=(torch.int64,),
)
