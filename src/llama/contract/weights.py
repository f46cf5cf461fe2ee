"""The names of the weights: those of a Hugging Face checkpoint, which `decoder_layer` and `llama` are called with."""

from collections.abc import Collection, Sequence

DECODER_LAYER = (
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)
"""The nine weights of one decoder layer."""
EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def in_layer(index: int, name: str) -> str:
    """The name in a whole model of a weight of decoder layer `index`: `model.layers.0.mlp.up_proj.weight`."""
    return f"model.layers.{index}.{name}"


def of_model(n_layers: int) -> list[str]:
    """The names of all weights of a Llama with n_layers layers, in order; the head, which may be tied, comes last."""
    layers = [in_layer(i, name) for i in range(n_layers) for name in DECODER_LAYER]
    return [EMBEDDING, *layers, FINAL_NORM, HEAD]


def check_decoder_layer(layer: str, names: Collection[str]) -> None:
    """Raise ValueError where one of the nine is missing, or there is one more."""
    _check(layer, names, DECODER_LAYER)


def check_model(layer: str, names: Collection[str], n_layers: int) -> None:
    """Raise ValueError where the weight of a Llama is missing, other than the head, or there is one more."""
    _check(layer, names, of_model(n_layers), optional=(HEAD,))


def _check(layer: str, names: Collection[str], wanted: Sequence[str], optional: Sequence[str] = ()) -> None:
    if lacks := [name for name in wanted if name not in names and name not in optional]:
        raise ValueError(f"{layer}: weights lacks {', '.join(sorted(lacks))}")
    if extra := sorted(set(names) - set(wanted)):
        raise ValueError(f"{layer}: weights has no use for {', '.join(extra)}")
