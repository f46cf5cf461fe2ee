"""`@contract()`: a layer refuses what its signature does not allow, in one sentence.

The types, dtypes and shapes of a layer stand once, in the annotations of its signature. The decorator
reads them and, before the layer runs, raises

- TypeError where an argument is of another type: `rms_norm: x must be a Tensor, got list`;
- ValueError where a dtype or a shape does not fit, with the sizes that the arguments before it fixed:
  `rms_norm: weight must be [d_model] with d_model=6, got [5]`.

`@contract(check)` then calls `check` with the same arguments, for what a signature cannot say. With
`one_dtype`, tensors of different float dtypes are a ValueError too, since torch has no product of them;
autocast chooses a dtype for each product itself, so within it they are welcome.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from typing import Any, ParamSpec, TypeVar

import torch

from llama.contract.annotations import rule_of

P = ParamSpec("P")
R = TypeVar("R")
BARE = "_without_contract"
SCALARS = {int, float, bool, bytes, types.NoneType}
MANY = 1000
"""Kinds of calls that a layer remembers as allowed, so that it need not look at their like again."""


def contract(
    check: Callable[..., None] | None = None, one_dtype: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for layers; see the module's docstring."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        layer = function.__module__.rpartition(".")[2]
        signature = inspect.signature(function)
        parameters = signature.parameters
        names = list(parameters)
        rules = {name: rule for name, p in parameters.items() if (rule := rule_of(p.annotation)) is not None}

        def follow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
            """Raise where a rule is broken; otherwise say whether such a call is allowed anywhere."""
            sizes: dict[str, Any] = {}
            arguments = dict(zip(names, args, strict=False)) | kwargs
            for name, value in arguments.items():
                if name in rules:
                    rules[name](f"{layer}: {name}", value, sizes)
            return not one_dtype or _one_dtype(layer, arguments)

        ruled = [name in rules for name in names]
        seen: set[Any] = set()

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given: Iterable[Any] = compress(args, ruled)
                if kwargs:
                    given = (*given, *(value for name, value in kwargs.items() if name in rules))
                call = (len(args), *kwargs, kinds := _kinds(given))
                if call not in seen and follow(args, kwargs) and kinds is not None and len(seen) < MANY:
                    seen.add(call)
                if check is not None:
                    check(*args, **kwargs)
                return function(*args, **kwargs)
            except TypeError:
                _bind(layer, signature, args, kwargs)
                raise

        # With the function it belongs to: functools.wraps copies attributes, and what wraps a layer is not that layer.
        setattr(checked, BARE, (checked, function))
        return checked

    return decorate


def unchecked(layer: Callable[P, R]) -> Callable[P, R]:
    """The layer without its contract, for a caller who knows that it holds; any other function as it is."""
    of, function = getattr(layer, BARE, (None, layer))
    return function if of is layer else layer


def check_ids(name: str, ids: Any, size: int) -> None:
    """Raise IndexError where an id lies outside 0..size - 1: Python would read -1 as the last."""
    if 0 in ids.shape:
        return
    low, high = ids.min().item(), ids.max().item()  # a third of the time of comparing all
    if low < 0 or high >= size:
        raise IndexError(f"{name} must lie in 0..{size - 1}, got {low if low < 0 else high}")


def check_merges(layer: str, merges: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError where a pair occurs twice, or names an id that there is not yet: merges[i] makes id 256 + i."""
    known = enumerate(merges, start=256)
    wrong = next((made for made, (left, right) in known if not (0 <= left < made and 0 <= right < made)), None)
    if wrong is not None:
        raise ValueError(
            f"{layer}: merges[{wrong - 256}] must be a pair of ids in 0..{wrong - 1}, got {merges[wrong - 256]}"
        )
    if len(set(merges)) < len(merges):
        first: dict[tuple[int, int], int] = {}
        again = next(i for i, pair in enumerate(merges) if first.setdefault(pair, i) != i)
        raise ValueError(f"{layer}: merges[{again}] is {merges[again]}, as merges[{first[merges[again]]}] is already")


def _kinds(values: Iterable[Any]) -> Any:
    """What the rules inspect in these arguments. Calls with equal kinds are accepted or refused alike (autocast aside).

    None where the rules inspect more than types, dtypes, shapes and the lengths of tuples.
    """
    kinds = tuple(map(_kind, values))
    return None if None in kinds else kinds


def _kind(value: Any) -> Any:
    kind = type(value)
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return value.dtype, value.shape
    if kind in SCALARS:
        return kind
    if kind is tuple:
        return _kinds(value)
    return _kind_of_list(value) if kind is list else None


def _kind_of_list(value: list[Any]) -> Any:
    """Each item keeps to the rule by itself, so that each kind counts once. Of scalars, and of tuples of one type of
    scalars, in C: there may be very many."""
    types = frozenset(map(type, value))
    if types <= SCALARS:
        return types
    if types == {tuple}:
        parts = frozenset(map(type, chain.from_iterable(value)))
        if len(parts) == 1 and parts <= SCALARS:
            return tuple, frozenset(map(len, value)), parts
    of = frozenset(map(_kind, value))
    return None if None in of else of


def _bind(layer: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise TypeError in the layer's name where an argument is missing, or there is one too many."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{layer}: {error}") from None


def _one_dtype(layer: str, arguments: dict[str, Any]) -> bool:
    """Whether there is one; where there are more, ValueError unless autocast will choose."""
    floats = {n: v for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    first = next(iter(floats), "")
    for name, tensor in floats.items():
        if tensor.dtype != floats[first].dtype and not torch.is_autocast_enabled(tensor.device.type):
            wanted, got = (str(t.dtype).removeprefix("torch.") for t in (floats[first], tensor))
            raise ValueError(f"{layer}: {name} must be {wanted} like {first}, got {got}")
    return len({tensor.dtype for tensor in floats.values()}) < 2
