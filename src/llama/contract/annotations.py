"""What an annotation says, as a rule that an argument keeps or breaks: a type, a dtype, a shape.

rule = rule_of(Float[Tensor, "batch seq"])
rule("rms_norm: x", x, sizes)      # TypeError or ValueError in a sentence, or the sizes of its axes, noted
"""

import numbers
import types
import typing
from collections.abc import Callable
from typing import Any

from jaxtyping import AbstractArray

# A rule takes what to call the argument, its value and the sizes known so far; it adds to the sizes.
Rule = Callable[[str, Any, dict[str, Any]], None]


def rule_of(annotation: Any) -> Rule | None:
    """The rule of a parameter with this annotation; None where there is nothing to check."""
    if typing.get_origin(annotation) is list:
        return _each(rule_of(typing.get_args(annotation)[0]))
    if typing.get_origin(annotation) is tuple:
        return _tuple([rule_of(part) for part in typing.get_args(annotation)])
    if typing.get_origin(annotation) is dict:
        return _mapping(*map(rule_of, typing.get_args(annotation)))
    allowed = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    optional = types.NoneType in allowed
    allowed = tuple(a for a in allowed if a is not types.NoneType)
    if all(isinstance(a, type) and issubclass(a, AbstractArray) for a in allowed):
        return _array(allowed, optional)
    if len(allowed) == 1 and allowed[0] in _SCALARS:
        return _scalar(*_SCALARS[allowed[0]], optional)
    return None


_SCALARS: dict[Any, tuple[type, str]] = {
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    bytes: (bytes, "bytes"),
}


def _scalar(kind: type, words: str, optional: bool) -> Rule:
    def rule(argument: str, value: Any, sizes: dict[str, Any]) -> None:
        if value is None and optional:
            return
        # Python counts True as the integer 1; as a size or a rate it is a slip.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{argument} must be {words}, got {value!r:.99}")

    return rule


def _each(of: Rule | None) -> Rule | None:
    if of is None:
        return None

    def rule(argument: str, value: Any, sizes: dict[str, Any]) -> None:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{argument} must be a list, got {type(value).__name__}")
        for i, item in enumerate(value):
            of(f"{argument}[{i}]", item, {})  # each item has a shape of its own

    return rule


def _tuple(of: list[Rule | None]) -> Rule:
    def rule(argument: str, value: Any, sizes: dict[str, Any]) -> None:
        if not isinstance(value, tuple) or len(value) != len(of):
            raise TypeError(f"{argument} must be a tuple of {len(of)}, got {value!r:.99}")
        for i, (part, item) in enumerate(zip(of, value, strict=True)):
            if part is not None:
                part(f"{argument}[{i}]", item, {})

    return rule


def _mapping(of_key: Rule | None, of_value: Rule | None) -> Rule:
    def rule(argument: str, value: Any, sizes: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise TypeError(f"{argument} must be a dict, got {type(value).__name__}")
        layer, _, name = argument.partition(": ")
        for key, item in value.items():
            if of_key is not None:
                of_key(f"{layer}: each key of {name}", key, {})
            if of_value is not None:
                of_value(f"{argument}[{key!r:.99}]", item, {})

    return rule


def _array(allowed: tuple[Any, ...], optional: bool) -> Rule:
    kind, dtypes = allowed[0].array_type, allowed[0].dtypes
    shapes = [a.dim_str.split() for a in allowed]

    def rule(argument: str, value: Any, sizes: dict[str, Any]) -> None:
        if value is None and optional:
            return
        if not isinstance(value, kind):
            raise TypeError(f"{argument} must be a {kind.__name__}, got {type(value).__name__}")
        dtype = str(value.dtype).rpartition(".")[2]
        if dtype not in dtypes:
            wanted = dtypes[0] if len(dtypes) == 1 else allowed[0].dtype.__name__.lower()
            raise ValueError(f"{argument} must be {wanted}, got {dtype}")
        if not any(_fits(value.shape, shape, sizes) for shape in shapes):
            words = " or ".join(f"[{' '.join(shape)}]" for shape in shapes)
            fixed = {name: _size(name, sizes) for shape in shapes for name in shape}
            known = " ".join(f"{name}={size}" for name, size in fixed.items() if size is not None)
            raise ValueError(f"{argument} must be {words}{known and ' with ' + known}, got {list(value.shape)}")

    return rule


def _fits(shape: tuple[int, ...], names: list[str], sizes: dict[str, Any]) -> bool:
    """Whether `shape` is what `names` say; if so, the names that are new are added to `sizes`."""
    found: dict[str, Any] = {}
    if names and names[0] == "...":
        names = names[1:]
        if len(shape) < len(names):
            return False
        lead = len(shape) - len(names)
        found["..."], shape = tuple(shape[:lead]), shape[lead:]
    if len(shape) != len(names):
        return False
    found.update(zip(names, shape, strict=True))
    if any(_size(name, sizes) not in (None, size) for name, size in found.items()):
        return False
    sizes.update(found)
    return True


def _size(name: str, sizes: dict[str, Any]) -> Any:
    """The size that `name` must have, or None where it is free; `head_dim//2` is half of head_dim."""
    whole, _, divisor = name.partition("//")
    if divisor:
        return sizes[whole] // int(divisor) if whole in sizes else None
    return sizes.get(name)
