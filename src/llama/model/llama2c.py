"""The checkpoints of llama2.c: one file of sizes and float32 arrays, little endian.

    int32   dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len
    float32 embeddings [vocab dim], attention norms [n_layers dim], wq, wk, wv, wo, feed-forward norms [n_layers dim],
            w1, w2, w3 (each [n_layers out in]), last norm [dim], two tables of angles [seq_len head_dim/2],
            and, where vocab_size is negative, an output head [vocab dim]; otherwise it is the embeddings

RMSNorm's eps is 1e-5 and RoPE's theta 10000. llama2.c turns the pairs of features (2i, 2i + 1), this model and those of
Hugging Face (i, i + head_dim/2), so the rows of wq and wk are put in another order.

Source: karpathy/llama2.c, legacy_export in export.py, and run.c.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llama.implementation import Implementation
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.model.weights import check_finite
from llama.text.llama2c_tokenizer import Llama2cTokenizer

HEADER = struct.Struct("<7i")
NAMES = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def load_llama2c(path: str | Path, implementation: Implementation | str = "fused") -> Llama:
    """The model of a llama2.c file in the legacy layout.

    Raises ValueError, in one sentence, where the sizes mean nothing, the file is longer or shorter than they say, or
    a weight is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"llama2c: {path} is not a file")
    config = _config(path)
    shapes = _shapes(config)
    expected = HEADER.size + 4 * sum(map(math.prod, shapes.values()))
    if (size := path.stat().st_size) != expected:
        raise ValueError(f"llama2c: {path} has {size:,} bytes where its sizes ask for {expected:,}")
    with path.open("rb") as file:
        file.seek(HEADER.size)
        # Read rather than mapped: pages of a mapped file are held beside the copies that are made of them.
        arrays = {name: np.fromfile(file, "<f4", math.prod(shape)).reshape(shape) for name, shape in shapes.items()}
    return Llama.from_weights(config, _tensors(path, config, arrays), implementation)


def _config(path: Path) -> LlamaConfig:
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise ValueError(f"llama2c: {path} has {len(header)} bytes, fewer than the {HEADER.size} of a header")
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, seq = HEADER.unpack(header)
    try:
        return LlamaConfig(
            vocab_size=abs(vocab),
            hidden_size=dim,
            intermediate_size=hidden_dim,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_key_value_heads=n_kv_heads,
            max_position_embeddings=seq,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            tie_word_embeddings=vocab > 0,
            bos_token_id=Llama2cTokenizer.BOS,
            eos_token_id=[Llama2cTokenizer.BOS, Llama2cTokenizer.EOS],
        )
    except ValueError as error:
        raise ValueError(f"llama2c: {path} is no checkpoint of llama2.c ({error})") from error


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, int, int]]:
    """How many matrices there are of each kind and of what shape, in the order of the file."""
    n, d_model, d_ff = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    kv_rows = config.num_key_value_heads * config.head_dim
    shapes = {
        "embeddings": (1, config.vocab_size, d_model),
        "attention_norm": (n, 1, d_model),
        "wq": (n, d_model, d_model),
        "wk": (n, kv_rows, d_model),
        "wv": (n, kv_rows, d_model),
        "wo": (n, d_model, d_model),
        "ffn_norm": (n, 1, d_model),
        "w1": (n, d_ff, d_model),
        "w2": (n, d_model, d_ff),
        "w3": (n, d_ff, d_model),
        "norm": (1, 1, d_model),
        "angles": (2, config.max_position_embeddings, config.head_dim // 2),
    }
    return shapes if config.tie_word_embeddings else shapes | {"head": (1, config.vocab_size, d_model)}


def _tensors(path: Path, config: LlamaConfig, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays under the names of a state dict, those of one matrix for each layer as views."""
    named = {"model.embed_tokens.weight": arrays["embeddings"][0], "model.norm.weight": arrays["norm"][0, 0]}
    if "head" in arrays:
        named["lm_head.weight"] = arrays["head"][0]
    for theirs, ours in NAMES.items():
        for i, array in enumerate(arrays[theirs]):
            named[f"model.layers.{i}.{ours}.weight"] = array[0] if theirs.endswith("norm") else array
    tensors = {}
    for name, array in named.items():
        tensors[name] = torch.from_numpy(array.astype(np.float32, copy=False))
        check_finite(path, name, tensors[name])
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensors[name] = _halves(tensors[name], config.head_dim)
    return tensors


def _halves(weight: Float[Tensor, "rows d_model"], head_dim: int) -> Float[Tensor, "rows d_model"]:
    """Within each head, rows 0, 2, 4, ... and then rows 1, 3, 5, ..."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2).contiguous()
