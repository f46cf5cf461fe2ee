"""The gradient of linear: two products of matrices, each as much work as the forward pass."""

from benchmarks.cases import autograd, layer

bench_linear_backward = layer(
    "linear_backward",
    along="d_out",
    sizes=(16, 128, 1024, 8192),
    others={"batch": 1, "seq": 256, "d_in": 512},
    flops=lambda c: 4 * c.seq * c.d_in * c.d_out,
    naive=16,
    peers={"autograd": autograd("linear_backward")},
)
