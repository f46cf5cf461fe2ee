"""Loss and gradients of a small model: the forward pass, and twice as much on the way back."""

from benchmarks.cases import autograd, layer
from benchmarks.gradients import bench_decoder_layer_backward
from benchmarks.model import bench_llama


def flops(c):
    forward = 2 * c.seq * c.d_model * c.d_ff  # what the gradient of a layer alone does not need of it
    return c.n_layers * (bench_decoder_layer_backward.flops(c) + forward) + 6 * c.seq * c.d_model * c.vocab


bench_llama_backward = layer(
    "llama_backward",
    along="seq",
    sizes=bench_llama.SIZES,
    others=bench_llama.OTHERS,
    flops=flops,
    naive=1,
    peers={"autograd": autograd("llama_backward")},
)
