"""A Llama whose rotations are read from a table of as many positions as its config allows."""

import torch

from llama import implementation

_OURS = implementation.load("vectorized")


def llama(token_ids, weights, config):
    seq, n_heads, n_kv_heads = token_ids.shape[1], config.num_attention_heads, config.num_key_value_heads
    frequencies = _OURS.rotation_frequencies(config, token_ids.device)
    angles = (torch.arange(config.max_position_embeddings, device=token_ids.device)[:, None] * frequencies).float()
    cosines, sines = angles.cos()[torch.arange(seq)], angles.sin()[torch.arange(seq)]

    def turned(x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        first, second = wide.chunk(2, dim=-1)
        return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(x.dtype)

    x = _OURS.embedding(token_ids, weights["model.embed_tokens.weight"])
    for i in range(config.num_hidden_layers):
        w = {k.removeprefix(f"model.layers.{i}."): v for k, v in weights.items() if k.startswith(f"model.layers.{i}.")}
        h = _OURS.rms_norm(x, w["input_layernorm.weight"], config.rms_norm_eps)
        q, k, v = (
            _OURS.linear(h, w[f"self_attn.{name}_proj.weight"]).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name, heads in (("q", n_heads), ("k", n_kv_heads), ("v", n_kv_heads))
        )
        y = _OURS.attention(turned(q), turned(k), v).transpose(1, 2).flatten(-2)
        x = x + _OURS.linear(y, w["self_attn.o_proj.weight"])
        h = _OURS.rms_norm(x, w["post_attention_layernorm.weight"], config.rms_norm_eps)
        x = x + _OURS.swiglu(h, *(w[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")))
    x = _OURS.rms_norm(x, weights["model.norm.weight"], config.rms_norm_eps)
    return _OURS.linear(x, weights.get("lm_head.weight", weights["model.embed_tokens.weight"]))
