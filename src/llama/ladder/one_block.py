"""The models on the lower rungs of the ladder: one block at most, of the parts that are switched on.

    x = embedding(token_ids)
    x = x + self_attention(rms_norm(x))              with attention
    x = swiglu(rms_norm(x))  or  relu(w · rms_norm(x))
    logits = lm_head · x

Without `norm`, each rms_norm is left out. `softmax` takes the softmax of the logits once more, which is the
mistake that the first rung is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.implementation import Implementation
from llama.model.config import LlamaConfig
from llama.model.language_model import LanguageModel
from llama.model.weights import shapes

NORMS = ("input_layernorm", "post_attention_layernorm")
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")


@dataclass(frozen=True)
class Parts:
    """Which parts a small model has."""

    softmax: bool = False
    """Softmax over the logits, before a loss that takes one of its own."""
    norm: bool = False
    """RMSNorm before each part."""
    attention: bool = False
    """One layer of self-attention, with rope, added to the embedding."""
    swiglu: bool = False
    """The gated feed-forward block in place of a matrix and a ReLU."""


class OneBlock(LanguageModel):
    """A model of these parts, as wide as `config` says; each layer's weights are called as in Llama's first block."""

    def __init__(self, parts: Parts, config: LlamaConfig, layers: Implementation):
        self.parts = parts
        super().__init__(config, layers.completed(), _shapes(parts, config))

    def forward(self, token_ids: Int64[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        layers, config, weights = self._within, self.config, self.tensors()
        block = {name.removeprefix("model.layers.0.").removesuffix(".weight"): w for name, w in weights.items()}
        x = layers.embedding(token_ids, weights["model.embed_tokens.weight"])
        if self.parts.attention:
            x = x + layers.self_attention(
                self._norm(x, block, "input_layernorm"),
                *(block[name] for name in ATTENTION),
                config.num_attention_heads,
                config.num_key_value_heads,
                torch.arange(x.shape[1], device=x.device),
                layers.rotation_frequencies(config, x.device),
            )
        x = self._norm(x, block, "post_attention_layernorm")
        if self.parts.swiglu:
            x = layers.swiglu(x, block["mlp.gate_proj"], block["mlp.up_proj"], block["mlp.down_proj"])
        else:
            x = layers.linear(x, block["mlp.up_proj"]).relu()
        logits = layers.linear(x, weights["lm_head.weight"])
        return layers.softmax(logits) if self.parts.softmax else logits

    def _norm(self, x: Tensor, block: Mapping[str, Tensor], name: str) -> Tensor:
        return self._within.rms_norm(x, block[name], self.config.rms_norm_eps) if self.parts.norm else x


def _shapes(parts: Parts, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    wanted = {"embed_tokens", "lm_head", "up_proj"}
    if parts.attention:
        wanted |= {"q_proj", "k_proj", "v_proj", "o_proj"}
    if parts.norm:
        wanted |= set(NORMS if parts.attention else NORMS[1:])
    if parts.swiglu:
        wanted |= {"gate_proj", "down_proj"}
    return {name: shape for name, shape in shapes(config).items() if name.split(".")[-2] in wanted}


def looking_ahead(layers: Implementation) -> Implementation:
    """The same layers, but attention sees every position: what is left of a Llama whose mask was forgotten."""
    own = layers.completed()

    def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, mask: Tensor | None = None) -> Tensor:
        return own.attention(q, k, v, causal=False, mask=mask)

    return own.replacing("looking ahead", attention=attention)
