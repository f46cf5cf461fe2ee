"""Whether an answer from the process of a layer can be one: its form is looked at before any of it is used."""

import math
from collections.abc import Collection
from typing import Any

from llama.machine.printable import printable
from tests.judge.apart.outcomes import LONGEST
from tests.judge.apart.wire import DTYPES, Forged, Message

MOST_ELEMENTS = 2**25
"""Of all results in one answer: a small memory can be spread out to many, and a comparison would write them out."""
TENSOR = {
    **dict.fromkeys(("number", "memory", "offset", "version"), int),
    **dict.fromkeys(("requires_grad", "is_leaf", "inference", "parameter"), bool),
    **dict.fromkeys(("size", "stride"), list),
    "dtype": str,
}
INFO = {"file": str, "stub": bool, "unloaded": str, "claims": str, "names": list, "left_out": list, "held": list}
FAILURE = {"raised": str, "bases": list, "text": str, "frames": list}


def check(answer: Message, asked: Collection[int]) -> None:
    """Raise Forged for what no worker sends."""
    _is(type(answer.get("id")) is int and answer["id"] in asked, "an answer to no question")
    for name in ("dropped", "writes", "memories", "tensors"):
        _is(isinstance(answer.get(name), list), name)
    _is(all(type(number) is int for number in [*answer["dropped"], *answer["writes"]]), "a number")
    _is(all(isinstance(m, list) and [type(part) for part in m] == [int, int] for m in answer["memories"]), "memories")
    for entry in answer["tensors"]:
        _has(entry, TENSOR)
        _is(entry["dtype"] in DTYPES, "a dtype")
        _is(all(type(number) is int for number in [*entry["size"], *entry["stride"]]), "a size")
    _is(sum(map(_elements, answer["tensors"])) <= MOST_ELEMENTS, "more elements than any layer returns")
    _check_the_rest(answer)


def _check_the_rest(answer: Message) -> None:
    versions = answer.get("versions", {})
    _is(isinstance(versions, dict), "versions")
    _is(
        all(key.isdecimal() and type(value) is int and 0 <= value < 2**31 for key, value in versions.items()),
        "versions",
    )
    for name, kind in (("changed", list), ("forbidden", list), ("left", dict), ("drawn", list), ("info", dict)):
        _is(isinstance(answer.get(name, kind()), kind), name)
    if "info" in answer:
        _has(answer["info"], INFO)
        _is(
            all(isinstance(text, str) for name in ("names", "left_out", "held") for text in answer["info"][name]),
            "texts",
        )
        _is(all(name.isidentifier() for name in answer["info"]["names"]), "names of parameters")
    if "raised" in answer:
        _has(answer, FAILURE)
        _is(all(isinstance(f, list) and [type(part) for part in f] == [str, int] for f in answer["frames"]), "frames")
    graph = answer.get("graph")
    _is(graph is None or (isinstance(graph, list) and len(graph) == 2 and isinstance(graph[1], list)), "a graph")


def text(value: Any) -> str:
    """What a layer has said, as it can be shown anywhere."""
    return printable(str(value)[:LONGEST])


def _elements(entry: Message) -> int:
    return math.prod(entry["size"])


def _has(entry: Any, fields: dict[str, Any]) -> None:
    _is(isinstance(entry, dict) and all(type(entry.get(name)) is kind for name, kind in fields.items()), "fields")


def _is(so: bool, what: str) -> None:
    if not so:
        raise Forged(what)
