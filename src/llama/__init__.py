"""Llama, layer by layer: as loops anyone can check, as plain torch, and as the fastest torch there is.

    from llama import KVCache, Llama, LlamaConfig, load

    layers = load("fused")                          # the layers as functions: naive, vectorized, fused, or your own
    model = Llama(LlamaConfig(vocab_size=65), layers)

The rooms, from the ground up. Each imports from those before it, never from those after it:

    machine/           devices, memory, and files that are written whole or not at all
    contract/          what a signature promises, and how a call is refused
    layers/            the layers, in chapters
    adapt.py           modules and kernels of other conventions as layers
    implementation/    a named set of layer functions: ours, or anybody's
    text/              corpora, splits and windows, tokenizers
    model/             LlamaConfig, Llama, KVCache, the decoder, weights and checkpoints on disk
    generation/        from a prompt to a text
    training/          one step, a whole run, what it leaves on disk, evaluation
    ladder/            ten models from a baseline to Llama, and the page that compares them
    kata/              stubs to write layers in, the board, the options of pytest
    __main__.py        python -m llama: ladder, train, generate, kata
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama.implementation import load
    from llama.model.config import LlamaConfig
    from llama.model.kv_cache import KVCache
    from llama.model.llama import Llama

__all__ = ["KVCache", "Llama", "LlamaConfig", "load"]

_HOME = {
    "KVCache": "llama.model.kv_cache",
    "Llama": "llama.model.llama",
    "LlamaConfig": "llama.model.config",
    "load": "llama.implementation",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes a second, which `import llama` alone need not cost."""
    if name not in _HOME:
        raise AttributeError(f"module llama has no attribute {name}")
    return getattr(importlib.import_module(_HOME[name]), name)
