"""Our own fused layers, as they compute what is large, at the sizes of the tests: in parts, and with other gradients.

The gradients themselves are in parts in the tests of many tokens, positions and heads alone.
"""

import importlib.util

from llama.layers import layer_module


def _large(layer, **limits):
    """`fused` of a copy of that layer's module, with other limits to what it counts as small."""
    spec = importlib.util.spec_from_file_location(f"large_sizes.{layer}", layer_module(layer).__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(limits)
    return module.fused


cross_entropy = _large("cross_entropy", CACHED=0)
rms_norm = _large("rms_norm", FEW=0)
rope = _large("rope", CACHED=0)
attention = _large("attention", CACHED=0, MANY_HEADS=0)
quantize = _large("quantize", CACHED=0)
quantized_linear = _large("quantized_linear", CACHED=0)
