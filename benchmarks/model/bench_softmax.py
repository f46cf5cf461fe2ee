"""Softmax: what a row of scores costs. Read twice and written once by torch; the bound is once each."""

from torch import nn

from benchmarks.cases import layer


def torch_nn(x):
    module = nn.Softmax(dim=-1)
    return lambda: module(x)


bench_softmax = layer(
    "softmax",
    along="n",
    sizes=(64, 512, 4096, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: 2 * c.seq * c.n,
    naive=64,
    peers={"torch.nn": torch_nn},
)
