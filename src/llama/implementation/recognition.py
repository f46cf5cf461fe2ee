"""What an author calls by other names and conventions: which layer it is, and the line that makes it one.

RMSNorm is a class: from llama import adapt; rms_norm = adapt.module(RMSNorm)
"""

import inspect
import re
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

from llama.layers import LAYERS

IMPORT = "from llama import adapt"
MODULES = {
    "rms_norm": re.compile(r"RMS_?Norm$", re.IGNORECASE),
    "swiglu": re.compile(r"(MLP|FeedForward|FFN|SwiGLU)$", re.IGNORECASE),
    "linear": re.compile(r"Linear$"),
    "embedding": re.compile(r"(?<!Rotary)Embedding$"),
}
"""What modules with the weights of a layer are called."""


def line(layer: str, name: str, value: Any) -> str:
    """The line that makes this value, which stands under that name, the layer; nothing where none is known."""
    if isinstance(value, type) and issubclass(value, torch.autograd.Function):
        return f"{layer} = {name}.apply"
    adapter = _adapter(layer, value)
    if not adapter:
        return "" if name == layer else f"{layer} = {name}"
    if adapter == "module" and not isinstance(value, type):
        name = type(value).__name__  # of an instance: what its file, or that which it comes from, calls the class
    return f"{IMPORT}; {layer} = adapt.{adapter}({name})"


def advice(strangers: Collection[tuple[str, str]]) -> str:
    """What to write for these, as `strangers` finds them, in lines that can be copied."""
    names, written = [name for name, _ in strangers], [line.removeprefix(f"{IMPORT}; ") for _, line in strangers]
    lines = [IMPORT] * any(" = adapt." in line for line in written) + written
    one = len(names) == 1
    return "\n".join([f"{', '.join(names)} would be {'one' if one else 'layers'} with:", *lines])


def problem(layer: str, value: Any) -> str:
    """Why what stands under the name of a layer is none, and what to write; nothing where it may be the layer."""
    if isinstance(value, type):
        what = f"{layer} is a class"
    elif isinstance(value, nn.Module) and list(value.parameters()):
        what = f"{layer} is an instance of {type(value).__name__}, which has weights of its own"
    elif _adapter(layer, value):
        what = f"{layer} is called with {', '.join(_parameters(value))}"
    else:
        return ""
    known = line(layer, layer, value)
    return f"{what}, and must be a function as its contract says" + (f". Write: {known}" if known else "")


def strangers(module: ModuleType, layers: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """What a module defines that would be a layer besides these: the name, and the line that makes it one.

    What it imports counts where it defines nothing else.
    """
    public = [(name, value) for name, value in vars(module).items() if not name.startswith("_") and name not in LAYERS]
    own = [(name, value) for name, value in public if getattr(value, "__module__", None) == module.__name__]
    taken = set(layers)
    for name, value in own if own or layers else public:
        if (layer := _layer(name, value)) and layer not in taken:
            taken.add(layer)
            yield name, line(layer, name, value)


def _layer(name: str, value: Any) -> str:
    """Which layer this is; nothing where it is none."""
    if isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module)):
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        return next((layer for layer, pattern in MODULES.items() if pattern.search(kind)), "")
    if isinstance(value, type) or not callable(value):
        return ""
    plain = name.replace("_", "").lower()
    candidates = [layer for layer in LAYERS if layer.replace("_", "") == plain]
    candidates += [layer for layer in ("rope", "attention") if _adapter(layer, value)]
    return next(iter(candidates), "")


def _adapter(layer: str, value: Any) -> str:
    """The name of the adapter that makes this value that layer."""
    if isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module)):
        return "module" if layer in MODULES else ""
    parameters = _parameters(value)
    if layer == "rope" and {"cos", "sin"} <= set(parameters) and "positions" not in parameters:
        return "apply_rotary_pos_emb" if "k" in parameters else "cos_sin"
    if layer == "attention" and "is_causal" in parameters and "causal" not in parameters:
        return "sdpa"
    return ""


def _parameters(value: Any) -> list[str]:
    try:
        return list(inspect.signature(value).parameters)
    except (TypeError, ValueError):  # compiled, or no function
        return []
