"""Our own fused layers, as they compute what is large, at the sizes of the tests: in parts, and with other gradients.

The gradients themselves are in parts in the tests of many tokens, positions and heads alone.
"""

import pytest

from llama.layers import layer_module


def _large(layer, **limits):
    """`fused` of that layer, with other limits to what it counts as small."""
    module = layer_module(layer)

    def call(*args, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            for name, limit in limits.items():
                patch.setattr(module, name, limit)
            return module.fused(*args, **kwargs)

    return call


cross_entropy = _large("cross_entropy", CACHED=0)
rms_norm = _large("rms_norm", FEW=0)
rope = _large("rope", CACHED=0)
attention = _large("attention", CACHED=0, MANY_HEADS=0)
