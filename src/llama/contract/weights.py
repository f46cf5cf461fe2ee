"""The names of the weights: those of a Hugging Face checkpoint, which `decoder_layer` and `llama` are called with."""

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
