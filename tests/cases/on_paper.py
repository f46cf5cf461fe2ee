"""A Llama so small that its logits and gradients can be worked out on paper.

weights = model({"o": ONE}, head=...)     # one decoder layer, whose w_o is the identity
llama(token_ids, weights, config())
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from llama.contract.weights import EMBEDDING, FINAL_NORM, HEAD, in_layer
from llama.model.config import LlamaConfig
from tests.cases.target import tensor

ZERO, ONE = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]


def config(n_layers: int = 1, rms_norm_eps: float = 0.0, **more: Any) -> LlamaConfig:
    """vocab=3, d_model=2, one head of 2 features, d_ff=1."""
    sizes: dict[str, Any] = {"vocab_size": 3, "hidden_size": 2, "intermediate_size": 1, "num_attention_heads": 1}
    return LlamaConfig(num_hidden_layers=n_layers, rms_norm_eps=rms_norm_eps, **sizes, **more)


def model(
    *layers: Mapping[str, Any],
    embedding: Sequence[Any] = ((3.0, 4.0), (1.0, 1.0), (1.0, -1.0)),
    norm: Sequence[float] = (1.0, 1.0),
    head: Any = None,
) -> dict[str, Tensor]:
    """Weights whose decoder layers add nothing but what `layers` give them: by layer, its projections by letter."""
    weights: dict[str, Any] = {EMBEDDING: embedding, FINAL_NORM: norm}
    for i, given in enumerate(layers or [{}]):
        for letter in "qkvo":
            weights[in_layer(i, f"self_attn.{letter}_proj.weight")] = given.get(letter, ZERO)
        for name in ("input", "post_attention"):
            weights[in_layer(i, f"{name}_layernorm.weight")] = (1.0, 1.0)
        for name, zeros in (("gate", [[0.0, 0.0]]), ("up", [[0.0, 0.0]]), ("down", [[0.0], [0.0]])):
            weights[in_layer(i, f"mlp.{name}_proj.weight")] = zeros
    if head:
        weights[HEAD] = head
    return {name: tensor(values) for name, values in weights.items()}
