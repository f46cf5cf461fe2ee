"""The gradient of SwiGLU: three products forwards, for gate, up and what comes back to hidden, and five that are left.

Of autograd's nine products three are those of its forward pass, the last of which a gradient by hand does not need.
"""

from benchmarks.cases import autograd, layer

bench_swiglu_backward = layer(
    "swiglu_backward",
    along="seq",
    sizes=(2, 32, 512, 2048),
    others={"batch": 1, "d_model": 256, "d_ff": 704},
    flops=lambda c: 16 * c.seq * c.d_model * c.d_ff,
    naive=2,
    peers={"autograd": autograd("swiglu_backward")},
)
