"""What layers have returned, for as long as it may be asked for again.

    memory = Memory()
    linear = memory.of(layers.linear)
    linear(x, weight) is linear(x, weight)    # computed once

A tensor is known by the memory that it lies in, and how: another view of the same numbers is the same tensor, and one
that was written to since is another. What a layer was given is held, so that nothing else comes to lie in its place.
"""

import functools
from typing import Any

import torch

from llama.implementation.arrays import Layer, map_leaves


class Memory:
    """The results of some layers by their arguments."""

    def __init__(self) -> None:
        self._results: dict[Any, tuple[Any, Any]] = {}

    def of(self, layer: Layer) -> Layer:
        """That layer, which computes nothing that lies here already."""

        @functools.wraps(layer)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            key = layer, _known_by(args), _known_by(kwargs)
            if key not in self._results:
                # A copy of the lists and mappings: what is held are the tensors that were in them.
                held = map_leaves(lambda leaf: leaf, (args, kwargs))
                self._results[key] = layer(*args, **kwargs), held
            return self._results[key][0]

        return remembered

    def clear(self) -> None:
        """Let go of all that is held."""
        self._results.clear()


def _known_by(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        version = 0 if tree.is_inference() else tree._version
        return tree.data_ptr(), tree.dtype, tree.device, tree.shape, tree.stride(), version
    if isinstance(tree, dict):
        return tuple((name, _known_by(value)) for name, value in tree.items())
    if isinstance(tree, list | tuple):
        return tuple(_known_by(value) for value in tree)
    return tree if isinstance(tree, int | float | bool | str) else id(tree)
