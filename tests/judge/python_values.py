"""Layers of plain Python values: what they may return, whether they left their arguments alone, and what differs.

Token ids are lists of int, merges are lists of pairs, a text is bytes. None of them is ever nearly right.
"""

from collections.abc import Iterator
from typing import Any

SHORT = 100
"""Characters of a value that is shown whole."""
AROUND = 20
"""Bytes that are shown before and after the first that differs."""


def problem(result: Any, given: list[Any]) -> str:
    """What is wrong with a result, whatever its values; nothing where it is made of list, tuple, int and bytes alone.

    Other kinds may equal these and still surprise whoever goes on with them: a NumPy integer overflows, a bytearray
    has no hash.
    """
    arguments = {id(part) for of in given for _, part in _parts(of, "") if isinstance(part, list | dict)}
    for name, part in _parts(result, "out"):
        kind = type(part)
        if kind not in (list, tuple, int, bytes):
            return f"{name} must be made of list, tuple, int and bytes alone, got {_named(kind)}"
        if id(part) in arguments:
            return f"{name} is an argument itself, which its caller may change: return a new list"
    return ""


def changed(after: Any, before: Any) -> bool:
    """Whether an argument holds something else than its copy from before the call; the order of a dict counts."""
    if isinstance(after, dict) and isinstance(before, dict):
        after, before = [*after, *after.values()], [*before, *before.values()]
    if not isinstance(after, list):
        return bool(after != before)
    return bool(after != before) or [*map(type, after)] != [*map(type, before)]  # True is equal to 1


def difference(actual: Any, expected: Any, name: str) -> str:
    """A sentence on what differs, or nothing: `out[3] is (98, 97) but should be (97, 98)`."""
    if type(actual) is not type(expected):
        return f"{name} must be {_a(type(expected))}, got {_a(type(actual))}"
    if actual == expected:
        return next((d for i in _places(expected) if (d := difference(actual[i], expected[i], f"{name}[{i}]"))), "")
    if max(len(repr(actual)), len(repr(expected))) <= SHORT:
        return f"{name} is {actual!r} but should be {expected!r}"
    at = next((i for i, (a, e) in enumerate(zip(actual, expected, strict=False)) if a != e), None)
    if at is None:
        more, of = ("lacks", expected) if len(actual) < len(expected) else ("goes on with", actual)
        at = min(len(actual), len(expected))
        return f"{name} has length {len(actual)} but should have {len(expected)}: it {more} {_shown(of, at)}"
    if isinstance(expected, bytes):
        start = max(0, at - AROUND)
        shown, right = (of[start : at + AROUND] for of in (actual, expected))
        return f"{name} is {shown!r} from {start} on but should be {right!r}"
    return difference(actual[at], expected[at], f"{name}[{at}]")


def _places(of: Any) -> range:
    """Where something may be equal and of another type, as True is to 1."""
    return range(len(of)) if isinstance(of, list | tuple) else range(0)


def _shown(of: Any, start: int) -> str:
    part = of[start : start + 3]
    return repr(part) + (" and so on" if len(of) > start + 3 else "")


def _parts(of: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The value itself, and what is in it."""
    yield name, of
    if type(of) in (list, tuple):
        for i, part in enumerate(of):
            yield from _parts(part, f"{name}[{i}]")


def _named(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _a(kind: type) -> str:
    word = _named(kind)
    return word if kind is bytes else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
