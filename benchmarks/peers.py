"""What the peers of our layers are made of, once, from the arguments of our layer, as its benchmarks call them."""

from typing import Any

from torch import Tensor

from benchmarks.cases import Run, loaded


def config(d_model: int, n_heads: int, n_kv_heads: int, **more: Any) -> Any:
    """As a checkpoint brings it; torch's scaled_dot_product_attention, which transformers chooses itself."""
    import transformers

    return transformers.LlamaConfig(
        hidden_size=d_model,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        attn_implementation="sdpa",
        **more,
    )


def rotary(of: Any) -> Any:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    return LlamaRotaryEmbedding(of)


def self_attention(
    x: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    n_heads: int,
    n_kv_heads: int,
    positions: Tensor,
    frequencies: Tensor,
) -> Run:
    """Angles are computed in the call, as ours are."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    of = config(x.shape[-1], n_heads, n_kv_heads, head_dim=w_q.shape[0] // n_heads)
    weights = {"q_proj.weight": w_q, "k_proj.weight": w_k, "v_proj.weight": w_v, "o_proj.weight": w_o}
    module, angles = loaded(lambda: LlamaAttention(of, 0), **weights), rotary(of)
    return lambda: module(x, position_embeddings=angles(x, positions[None]))[0]


def decoder_layer(
    x: Tensor,
    weights: dict[str, Tensor],
    n_heads: int,
    n_kv_heads: int,
    positions: Tensor,
    frequencies: Tensor,
    eps: float = 1e-5,
) -> Run:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    d_ff, q_rows = weights["mlp.gate_proj.weight"].shape[0], weights["self_attn.q_proj.weight"].shape[0]
    sizes = {"head_dim": q_rows // n_heads, "intermediate_size": d_ff, "rms_norm_eps": eps}
    of = config(x.shape[-1], n_heads, n_kv_heads, **sizes)
    module, angles = loaded(lambda: LlamaDecoderLayer(of, 0), **weights), rotary(of)
    return lambda: module(x, position_embeddings=angles(x, positions[None]))


def causal_lm(weights: dict[str, Tensor], ours: Any) -> Any:
    """LlamaForCausalLM with these weights, from our config."""
    import transformers

    of = config(
        ours.hidden_size,
        ours.num_attention_heads,
        ours.num_key_value_heads,
        head_dim=ours.head_dim,
        intermediate_size=ours.intermediate_size,
        rms_norm_eps=ours.rms_norm_eps,
        vocab_size=ours.vocab_size,
        num_hidden_layers=ours.num_hidden_layers,
        max_position_embeddings=ours.max_position_embeddings,
    )
    model = loaded(lambda: transformers.LlamaForCausalLM(of), **weights)
    model.model.rotary_emb = rotary(of)  # its angles are no weights, and were made without values
    return model


def llama(token_ids: Tensor, weights: dict[str, Tensor], ours: Any) -> Run:
    model = causal_lm(weights, ours)
    return lambda: model(token_ids, use_cache=False).logits


def spelled(merges: list[tuple[int, int]]) -> list[bytes]:
    """The bytes of each id, by which the tokenizers of others know it."""
    known = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        known.append(known[left] + known[right])
    return known
