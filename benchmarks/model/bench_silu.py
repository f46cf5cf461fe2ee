"""SiLU: element by element, one read and one write."""

from torch import nn

from benchmarks.cases import layer


def torch_nn(x):
    module = nn.SiLU()
    return lambda: module(x)


bench_silu = layer(
    "silu",
    along="n",
    sizes=(16, 128, 2048, 16384),
    others={"batch": 1, "seq": 256},
    moved=lambda c: 2 * c.seq * c.n,
    naive=128,
    peers={"torch.nn": torch_nn},
)
