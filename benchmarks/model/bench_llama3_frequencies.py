"""Llama 3.1's rescaled frequencies. transformers makes the unscaled ones in the same call."""

import torch

from benchmarks.cases import layer


def transformers(frequencies, factor, low_freq_factor, high_freq_factor, original_context):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from benchmarks.peers import config

    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": factor,
        "low_freq_factor": low_freq_factor,
        "high_freq_factor": high_freq_factor,
        "original_max_position_embeddings": original_context,
    }
    of = config(2 * len(frequencies), 1, 1, head_dim=2 * len(frequencies), rope_parameters=scaling)
    return lambda: ROPE_INIT_FUNCTIONS["llama3"](of, torch.device("cpu"))


bench_llama3_frequencies = layer(
    "llama3_frequencies",
    along="half",
    sizes=(4, 32, 256, 4096),
    others={},
    moved=lambda c: 2 * c.half,
    naive=4096,
    peers={"transformers": transformers},
    dtypes=(torch.float64,),
)
