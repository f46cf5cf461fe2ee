"""RMSNorm: hardly any arithmetic, so what counts is how often x goes through memory."""

from torch import nn

from benchmarks.cases import layer, loaded


def torch_nn(x, weight, eps):
    module = loaded(lambda: nn.RMSNorm(x.shape[-1], eps=eps), weight=weight)
    return lambda: module(x)


def transformers(x, weight, eps):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    module = loaded(lambda: LlamaRMSNorm(x.shape[-1], eps=eps), weight=weight)
    return lambda: module(x)


bench_rms_norm = layer(
    "rms_norm",
    along="seq",
    sizes=(4, 64, 1024, 8192),
    others={"batch": 1, "d_model": 512},
    moved=lambda c: 2 * c.seq * c.d_model,
    naive=64,
    peers={"torch.nn": torch_nn, "transformers": transformers},
)
