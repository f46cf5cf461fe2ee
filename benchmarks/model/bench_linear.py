"""A linear map: one matrix product, and two in its gradient."""

from torch import nn

from benchmarks.cases import layer, loaded


def torch_nn(x, weight):
    module = loaded(lambda: nn.Linear(*weight.shape[::-1], bias=False), weight=weight)
    return lambda: module(x)


bench_linear = layer(
    "linear",
    along="d_out",
    sizes=(16, 128, 1024, 8192),
    others={"batch": 1, "seq": 256, "d_in": 512},
    flops=lambda c: 2 * c.seq * c.d_in * c.d_out,
    naive=16,
    peers={"torch.nn": torch_nn},
)
