"""The frequencies of RoPE: computed once per call of a model, and small however wide its heads are."""

import torch

from benchmarks.cases import layer


def transformers(head_dim, theta):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from benchmarks.peers import config

    rotation = {"rope_type": "default", "rope_theta": theta}
    of = config(head_dim, 1, 1, head_dim=head_dim, rope_parameters=rotation)
    return lambda: LlamaRotaryEmbedding.compute_default_rope_parameters(of)


bench_rope_frequencies = layer(
    "rope_frequencies",
    along="half",
    sizes=(4, 32, 256, 4096),
    others={},
    moved=lambda c: c.half,
    naive=4096,
    peers={"transformers": transformers},
    dtypes=(torch.float64,),
)
