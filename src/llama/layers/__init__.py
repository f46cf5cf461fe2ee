"""The layers of Llama, one a file, in reading order.

Each file holds the contract of its layer in the docstring and then the layer three times: `naive`
(NumPy float64, explicit loops: the reference), `vectorized` (plain torch) and `fused` (torch's
fastest functions). The three files marked below hold one function over any implementation instead.

float64 is computed in float64; what half precision is computed in, the contracts say where it matters.

Sizes have the same names everywhere: `batch`, `seq` (`q_len` and `kv_len` where they differ),
`d_model`, `n_heads`, `n_kv_heads`, `head_dim`, `d_ff`, `vocab`, `n_layers`; `...` is any leading axes.
"""

CACHED = 2**18
"""As many float32 numbers as a core's own cache holds (1 MB): what is computed in parts has so many in each."""

LAYERS = (
    "softmax",
    "cross_entropy",
    "embedding",
    "linear",
    "rms_norm",
    "silu",
    "swiglu",
    "rope_frequencies",
    "llama3_frequencies",
    "rope",
    "attention",
    "self_attention",  # composed
    "decoder_layer",  # composed
    "llama",  # composed
    "adamw",
    "clip_grad_norm",
    "cosine_schedule",
    "filter_logits",
    "sample",
)
