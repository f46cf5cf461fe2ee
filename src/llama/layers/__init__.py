"""The layers of Llama, in chapters, in reading order: the list below is the only place that names them all.

    model/       from softmax to the whole of llama: the forward pass
    gradients/   the same layers backwards, by hand
    training/    a step of the optimizer, its clipping, its learning rate
    writing/     from logits to the next token
    decoding/    what makes generation fast: tiles, pages, weights of few bits, several tokens at a time
    tokens/      from text to token ids: byte-pair encoding, over plain Python values

Each layer stands in a file of its own. Its docstring is the contract; then comes the layer three times: `naive`
(NumPy float64, explicit loops: the reference), `vectorized` (plain torch) and `fused` (torch's fastest functions).
A composed layer has one function instead, `compose`, which is written over any implementation.

float64 is computed in float64; what half precision is computed in, the contracts say where it matters.

Sizes have the same names everywhere: `batch`, `seq` (`q_len` and `kv_len` where they differ),
`d_model`, `n_heads`, `n_kv_heads`, `head_dim`, `d_ff`, `vocab`, `n_layers`; `...` is any leading axes.

A layer imports its contract and what `model` shares, a constant of the machine and the dtype to compute in; never
another layer. Only a gradient may import its own layer, and tiled attention and the layers of tokens what they are
made of.
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

CHAPTERS: dict[str, tuple[str, ...]] = {
    "model": (
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
        "self_attention",
        "decoder_layer",
        "llama",
    ),
    "gradients": (
        "softmax_backward",
        "cross_entropy_backward",
        "embedding_backward",
        "linear_backward",
        "rms_norm_backward",
        "silu_backward",
        "swiglu_backward",
        "rope_backward",
        "attention_backward",
        "self_attention_backward",
        "decoder_layer_backward",
        "llama_backward",
    ),
    "training": (
        "adamw",
        "clip_grad_norm",
        "cosine_schedule",
    ),
    "writing": (
        "filter_logits",
        "sample",
    ),
    "decoding": (
        "tiled_attention",
        "merge_attention",
        "paged_attention",
        "quantize",
        "quantized_linear",
        "speculative_accept",
    ),
    "tokens": (
        "bpe_merge",
        "bpe_train",
        "bpe_encode",
        "bpe_decode",
    ),
}
"""The layers of each chapter. A line here, and a file of the same chapter and name in each room, make a layer."""
LAYERS = tuple(layer for layers in CHAPTERS.values() for layer in layers)
CHAPTER = {layer: chapter for chapter, layers in CHAPTERS.items() for layer in layers}
"""The chapter of each layer."""


INTERNAL = ("layers", "cache", "dropout", "kept")
"""Parameters of our own composed layers that are not in their contract."""


def layer_module(layer: str) -> ModuleType:
    """The file of that layer, imported."""
    return importlib.import_module(f"llama.layers.{CHAPTER[layer]}.{layer}")


@functools.cache
def parameters_of(layer: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of that layer by name, in the order of its contract."""
    module = layer_module(layer)
    parameters = inspect.signature(getattr(module, "naive", None) or module.compose).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in INTERNAL}


def takes_tensors(layer: str) -> bool:
    """Whether that layer computes with tensors (or numbers); the others take and return lists, tuples and bytes."""
    return CHAPTER[layer] != "tokens"


def gradients_of(layer: str) -> tuple[str, ...]:
    """The parameters whose gradients that layer returns, in order; none where it is no gradient."""
    found: tuple[str, ...] = getattr(layer_module(layer), "GRADIENTS", ())
    return found


def result_dtypes_of(layer: str) -> Callable[..., Sequence[Any]] | None:
    """From the arguments of that layer to the dtypes of its results; None where all have that of its first float."""
    found: Callable[..., Sequence[Any]] | None = getattr(layer_module(layer), "result_dtypes", None)
    return found


def closest(name: str) -> str | None:
    """The layer whose name is most like a wrong one: rms_norm for RMSNorm; None where none is like it."""
    return next(iter(difflib.get_close_matches(name.lower(), LAYERS, n=1)), None)


def unknown(name: str) -> str:
    """What to say of a layer that there is not: `there is no layer sofmax; did you mean softmax?`"""
    meant = closest(name)
    return f"there is no layer {name}; " + (
        f"did you mean {meant}?" if meant else f"the layers are {', '.join(LAYERS)}"
    )
