"""Where the wrong elements lie, in words: `every position but 0`, `only heads 2 and 3`, `above the diagonal`."""

import inspect
import typing
from collections.abc import Sequence

from torch import Tensor

from llama.layers import layer_module

NOUNS = {
    "batch": "batch entry",
    "seq": "position",
    "q_len": "query",
    "kv_len": "key",
    "n_heads": "head",
    "n_kv_heads": "key head",
    "head_dim": "feature",
    "d_model": "feature",
    "d_out": "feature",
    "vocab": "token",
    "n": "entry",
}


def axes(layer: str, ndim: int, part: int = 0) -> list[str]:
    """The names of the axes of what the layer returns, or of that part of it, from the annotation in its contract."""
    module = layer_module(layer)
    returned = inspect.signature(getattr(module, "naive", None) or module.compose).return_annotation
    if typing.get_origin(returned) is tuple:
        parts = typing.get_args(returned)
        returned = parts[part] if part < len(parts) else None
    names = getattr(returned, "dim_str", "...").split()
    if "..." in names:
        lead = ndim - len(names) + 1
        names = (["batch", "seq"] if lead == 2 else [f"axis {i}" for i in range(lead)]) + names[1:]
    return names if len(names) == ndim else [f"axis {i}" for i in range(ndim)]


def where(wrong: Tensor, names: Sequence[str]) -> str:
    """`6 of 24 elements are wrong: only head 1, every position but 0`."""
    count, total = int(wrong.sum()), wrong.numel()
    if count == total:
        return f"all {total} elements are wrong" if total > 1 else ""
    places = [place for axis, name in enumerate(names) if (place := _along(wrong, axis, name))]
    places += _triangle(wrong, names)
    return f"{count} of {total} elements are wrong" + (": " + ", ".join(places) if places else "")


def _along(wrong: Tensor, axis: int, name: str) -> str:
    """Which indices of this axis have any wrong element, where not all have."""
    size = wrong.shape[axis]
    others = [i for i in range(wrong.ndim) if i != axis]
    touched = (wrong.sum(dim=others) if others else wrong).nonzero().flatten().tolist()
    if len(touched) == size:
        return ""
    noun = NOUNS.get(name, f"{name} index")
    if len(touched) == size - 1 and size > 2:
        missing = set(range(size)) - set(touched)
        return f"every {noun} but {missing.pop()}"
    return f"only {noun} {touched[0]}" if len(touched) == 1 else f"only {_plural(noun)} {_listed(touched)}"


def _plural(noun: str) -> str:
    for end, ends in (("index", "indices"), ("y", "ies")):
        if noun.endswith(end):
            return noun.removesuffix(end) + ends
    return noun + "s"


def _listed(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and last - first == len(numbers) - 1:
        return f"{first} to {last}"
    return ", ".join(map(str, numbers[:-1])) + f" and {last}"


def _triangle(wrong: Tensor, names: Sequence[str]) -> list[str]:
    if wrong.ndim < 2 or wrong.shape[-1] != wrong.shape[-2] or wrong.shape[-1] == 1:
        return []
    square = wrong.reshape(-1, *wrong.shape[-2:]).any(dim=0)
    if not square.tril().any():
        return [f"above the diagonal of {names[-2]} and {names[-1]}"]
    if not square.triu().any():
        return [f"below the diagonal of {names[-2]} and {names[-1]}"]
    return []
