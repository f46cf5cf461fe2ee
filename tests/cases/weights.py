"""Positions, frequencies, weights and configs, made from a case."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llama.contract.weights import DECODER_LAYER
from llama.model.config import LlamaConfig
from llama.model.weights import shapes
from tests.cases import target
from tests.cases.case import Case

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}
"""A scaling of which short sequences see all three parts."""


def positions(case: Case, axes: str, high: int = 50) -> Tensor:
    """Any positions: unordered, repeated."""
    return case.integers(axes, high)


def frequencies(case: Case) -> Tensor:
    """Frequencies as RoPE has them, but without using any implementation of them."""
    exponents = np.arange(case.half) / case.half
    return target.tensor(10000.0**-exponents, torch.float32 if target.DEVICE.type == "mps" else torch.float64)


def layer_weights(case: Case) -> dict[str, Tensor]:
    """The nine tensors of a decoder layer; norm weights are not ones."""
    q_rows, kv_rows = case.n_heads * case.head_dim, case.n_kv_heads * case.head_dim
    of = {
        "self_attn.q_proj.weight": (q_rows, case.d_model),
        "self_attn.k_proj.weight": (kv_rows, case.d_model),
        "self_attn.v_proj.weight": (kv_rows, case.d_model),
        "self_attn.o_proj.weight": (case.d_model, q_rows),
        "mlp.gate_proj.weight": (case.d_ff, case.d_model),
        "mlp.up_proj.weight": (case.d_ff, case.d_model),
        "mlp.down_proj.weight": (case.d_model, case.d_ff),
    }
    return _gentle({name: weight(case, of.get(name, (case.d_model,))) for name in DECODER_LAYER})


def _gentle(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With residual branches that are small beside what they are added to, as in a real initialisation.

    Branches as large as the stream could cancel it, and RMSNorm would magnify every rounding of what is left.
    """
    ends = ("o_proj.weight", "down_proj.weight")
    return {name: w / 4 if name.endswith(ends) else w for name, w in weights.items()}


def weight(case: Case, shape: Sequence[int]) -> Tensor:
    """A matrix that keeps sums near 1 whatever the sizes, or the weights of a norm, which are not ones."""
    return case.normal(shape, 1 / math.sqrt(shape[-1])) if len(shape) > 1 else case.uniform(shape, 0.5, 1.5)


def config(case: Case, **more: Any) -> LlamaConfig:
    """A small model with the sizes of the case."""
    return LlamaConfig(
        vocab_size=case.vocab,
        hidden_size=case.d_model,
        intermediate_size=case.d_ff,
        num_hidden_layers=case.n_layers,
        num_attention_heads=case.n_heads,
        num_key_value_heads=case.n_kv_heads,
        head_dim=case.head_dim,
        **{"max_position_embeddings": max(64, case.sizes.get("seq", 0))} | more,
    )


def model_weights(case: Case, of: LlamaConfig) -> dict[str, Tensor]:
    """A state dict for that config, with weights large enough that every one matters."""
    weights = _gentle({name: weight(case, shape) for name, shape in shapes(of).items()})
    return weights | {"model.embed_tokens.weight": case.away_from_zero("vocab d_model")}
