"""The gradient of RMSNorm: two tensors are read and one is written, and every token has a part in one sum."""

from benchmarks.cases import autograd, layer

bench_rms_norm_backward = layer(
    "rms_norm_backward",
    along="seq",
    sizes=(4, 64, 1024, 8192),
    others={"batch": 1, "d_model": 512},
    moved=lambda c: 3 * c.seq * c.d_model,
    naive=64,
    peers={"autograd": autograd("rms_norm_backward")},
)
