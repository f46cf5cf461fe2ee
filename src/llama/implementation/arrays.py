"""NumPy layers as layers over tensors, and trees of arguments."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Layer = Callable[..., Any]
SINGLE = torch.float32
"""In which a norm is returned at least."""


def on_tensors(
    function: Layer, like: Sequence[str] = (), result_dtypes: Callable[..., Sequence[torch.dtype]] | None = None
) -> Layer:
    """A layer over NumPy arrays as one over tensors: float64 within, the first float tensor's dtype outside.

    Where it returns gradients, `like` names the parameters whose dtypes these have. `result_dtypes` says of the same
    arguments which dtypes several results have.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def layer(*args: Any, **kwargs: Any) -> Any:
        named = dict(zip(names, args, strict=False)) | kwargs
        given = [t for t in _leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        floats = [t.dtype for t in given if t.is_floating_point()]
        dtypes = result_dtypes(*args, **kwargs) if result_dtypes else ()
        device = given[0].device if given else torch.device("cpu")

        def to_array(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            leaf = leaf.detach().cpu()
            return (leaf.double() if leaf.is_floating_point() else leaf).numpy()

        def to_tensor(leaf: Any, dtype: torch.dtype | None) -> Any:
            if not isinstance(leaf, np.ndarray):
                return leaf
            tensor = torch.from_numpy(leaf)
            return tensor.to(device, dtype if dtype and tensor.is_floating_point() else tensor.dtype)

        def to_tensors(result: Any) -> Any:
            if like:
                parts = result if isinstance(result, tuple) else (result,)
                gradients = tuple(to_tensor(part, named[name].dtype) for part, name in zip(parts, like, strict=True))
                return gradients if isinstance(result, tuple) else gradients[0]
            if dtypes:
                return tuple(to_tensor(part, dtype) for part, dtype in zip(result, dtypes, strict=True))
            if isinstance(result, tuple) and isinstance(result[0], list):  # gradients, and their norm
                return to_tensors(result[0]), to_tensor(
                    result[1], functools.reduce(torch.promote_types, floats, torch.float32)
                )
            if isinstance(result, tuple):
                return tuple(to_tensors(part) for part in result)
            if isinstance(result, list):  # of gradients, each in its own dtype
                return [to_tensor(array, dtype) for array, dtype in zip(result, floats, strict=True)]
            return to_tensor(result, floats[0] if floats else None)

        args, kwargs = map_leaves(to_array, (args, kwargs))
        return to_tensors(function(*args, **kwargs))

    return layer


def _leaves(tree: Any) -> list[Any]:
    leaves: list[Any] = []
    map_leaves(leaves.append, tree)
    return leaves


SEQUENCES = (list, tuple)
"""A union of these, list | tuple, would be made anew at each of the hundreds of thousands of calls."""


def tensors(tree: Any) -> list[torch.Tensor]:
    """All tensors in it, in order."""
    return [leaf for leaf in _leaves(tree) if isinstance(leaf, torch.Tensor)]


def map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, SEQUENCES):
        return type(tree)([map_leaves(change, item) for item in tree])
    if isinstance(tree, dict):
        return {key: map_leaves(change, item) for key, item in tree.items()}
    return change(tree)
