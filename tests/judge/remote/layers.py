"""A layer in another process, as the judge calls it: with tensors, and with gradients of any order.

    layers = load("my_llama", Limits(), forbidden=["fused"])
    layers.rope(x, positions, frequencies)

It is an Implementation like any other, so that the same tests judge it.
"""

import builtins
import functools
import inspect
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from llama.implementation import Implementation, ImplementationError, Layer, tensors
from llama.implementation.source import layers_in
from llama.layers import LAYERS
from tests.judge.apart.holding import Limits
from tests.judge.apart.state import STATE
from tests.judge.apart.wire import DTYPES, Message, set_version
from tests.judge.guards.endings import Refused
from tests.judge.remote.answers import text
from tests.judge.remote.child import Child, Zygote, modes
from tests.judge.remote.files import plain_files

PASSED: dict[str, Callable[[Any], Any]] = {
    "torch's default dtype": DTYPES.__getitem__,
    "torch's grad mode": bool,
    "torch's number of threads": lambda number: min(max(int(number), 1), MOST_THREADS),
}
"""What a layer leaves another over there becomes so here, where tests look at it; of all else it is told."""
MOST_THREADS = 64
GROUP = ExceptionGroup
"""A kind that cannot be made of a text."""


class Apart(Implementation):
    """The layers of a submission, each in a process of its own."""

    is_apart = True

    def __init__(self, source: Path, children: dict[str, Child]):
        super().__init__(source.stem, {layer: Remote(child, 0) for layer, child in children.items()})
        self.source = str(source)
        self.children = children
        infos = {layer: child.info for layer, child in children.items()}
        self.held: list[str] = next((info["held"] for info in infos.values() if info.get("held")), [])
        """What the system lets the processes be held by."""
        # In place of what an Implementation finds out from its functions.
        self.__dict__["stubs"] = frozenset(layer for layer, info in infos.items() if info.get("stub"))
        self.__dict__["unloaded"] = {layer: info["unloaded"] for layer, info in infos.items() if info.get("unloaded")}
        for layer, info in infos.items():
            if info.get("claims"):
                self.claim(info["claims"], layer)

    @property
    def files(self) -> dict[str, str]:
        return {layer: child.original(child.info["file"]) for layer, child in self.children.items()}

    def reloaded(self, layer: str) -> Layer:
        child = self.children[layer]
        answer, _ = child.ask({"do": "fresh"})
        return Remote(child, answer["function"]) if "function" in answer else Remote(child, 0)

    def end(self) -> None:
        for child in self.children.values():
            child.end()


def load(zygote: Zygote, source: str, limits: Limits, forbidden: Sequence[str] = (), only: Sequence[str] = ()) -> Apart:
    """The layers of that folder or file, or those of `only`. Raises ImplementationError where there are none."""
    place = Path(source)
    if not place.exists():
        raise ImplementationError(f"there is no {source}: what is judged apart is a folder or a .py file")
    if place.is_file() and place.suffix != ".py":
        raise ImplementationError(f"{source} must be a folder or a .py file")
    files = [file for file in plain_files(place) if place.is_file() or file.parent == place]
    found = {layer for file in files for layer in layers_in(file)}
    layers = [layer for layer in LAYERS if layer in found and (not only or layer in only)]
    if not layers:
        wanted = ", ".join(only or LAYERS)
        raise ImplementationError(f"{source} defines no layer; it must define at least one of {wanted}")
    return Apart(place, {layer: zygote.start(place, layer, limits, forbidden) for layer in layers})


class Remote:
    """A function over there."""

    def __init__(self, child: Child, function: int):
        self.child, self.function = child, function
        self.__name__ = child.layer
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in child.info["names"]]
        self.__signature__ = inspect.Signature(parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if reason := self.child.info.get("unloaded"):
            raise Refused(reason)
        question = {"do": "call", "function": self.function, "modes": modes()}
        answer, held = self.child.ask(question, (args, kwargs))
        _apply(self.child, answer)
        result = self.child.understand(lambda: _unpacked(self.child, answer["result"]))
        for entry in answer["tensors"]:
            if entry["requires_grad"] and entry["is_leaf"] and (t := self.child.mirror.tensor(entry["number"])).is_leaf:
                t.requires_grad_()  # cut off, and made to look as if it were not
        if answer.get("graph"):
            given = [t for t in tensors((args, kwargs)) if t.requires_grad]
            graph, outs = answer["graph"]
            _connect(self.child, graph, outs, given)
        del held
        return result


def _apply(child: Child, answer: Message) -> None:
    """What the call has done besides returning is done here too, where the judge looks for it; an error is raised."""
    if (error := child.understand(functools.partial(_effects, child, answer))) is not None:
        raise error


def _effects(child: Child, answer: Message) -> Exception | None:
    for number, version in answer.get("versions", {}).items():
        set_version(child.mirror.tensor(int(number)), int(version))
    for number, contents in answer.get("changed", ()):
        _replace(child.trees.by_number(number), _unpacked(child, contents))
    of_python, of_torch = answer.get("drawn", (False, False))
    if of_python:
        random.random()
    if of_torch:
        torch.rand(())
    if answer.get("forbidden"):
        return Refused(f"the layer calls {', '.join(map(text, answer['forbidden'][:3]))}, which is forbidden")
    for name, value in answer.get("left", {}).items():
        _, change = STATE[name]
        if name not in PASSED:
            return Refused(f"the layer changed {name}, with which others compute too")
        change(PASSED[name](value))
    return _error(child, answer) if "failed" in answer else None


def _replace(container: Any, contents: Any) -> None:
    if isinstance(container, list):
        container[:] = contents
    elif isinstance(container, dict):
        container.clear()
        container.update(contents)


class RaisedApart:
    """An error of a layer over there: its kind is made of this and of the kind of Python's that it is."""

    frames: list[tuple[str, int]]
    text: str

    def __str__(self) -> str:
        return self.text


def _error(child: Child, answer: Message) -> Exception:
    if "ended" in answer:
        return Refused(f"the layer ended {text(answer['ended'])}")
    known = (getattr(builtins, str(base), None) for base in answer["bases"])
    base = next((k for k in known if isinstance(k, type) and issubclass(k, Exception) and k is not GROUP), Exception)
    kind: Any = type(answer["raised"], (RaisedApart, base), {})
    error = kind.__new__(kind, answer["text"])  # not __init__, which may ask for more
    error.text = child.original(answer["text"])
    error.frames = [(child.original(file), line) for file, line in answer["frames"]]
    return cast(Exception, error)


class Odd:
    """In place of a result that is neither a plain tensor nor a number."""


def _unpacked(child: Child, packed: Any) -> Any:
    if isinstance(packed, dict) and "odd" in packed:
        kind = str(packed["odd"])
        if packed.get("is_tensor"):
            return torch.zeros(0).as_subclass(type(kind, (Tensor,), {}))
        return type(kind, (Odd,), {})()
    if isinstance(packed, dict) and "tuple" in packed:
        return tuple(_unpacked(child, part) for part in packed["tuple"])
    if isinstance(packed, dict) and "list" in packed:
        if isinstance(number := packed.get("is"), int):
            return child.trees.by_number(number)  # an argument itself
        return [_unpacked(child, part) for part in packed["list"]]
    if isinstance(packed, dict) and "mapping" in packed:
        return {str(key): _unpacked(child, part) for key, part in packed["mapping"]}
    return child.trees.unpack(packed)


class _Graph:
    """Lives as long as a gradient can be asked for."""

    def __init__(self, child: Child, number: int):
        self.child, self.number = child, number
        weakref.finalize(self, child.forget_graph, number)


def _connect(child: Child, number: int, outs: list[int], inputs: list[Tensor]) -> None:
    """Make of these results what autograd can go back from, to the arguments."""
    graph = _Graph(child, number)
    leading = inputs or [torch.empty(0, requires_grad=True)]
    results = [child.mirror.tensor(out) for out in outs]
    with torch.enable_grad():  # it is the layer that has made a graph, in whatever mode
        _Backward.apply(graph, results, inputs, *leading)


class _Backward(torch.autograd.Function):
    """From results of another process back to its arguments, and from these gradients back again."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, results: list[Tensor], inputs: list[Tensor], *leading: Tensor) -> Any:
        ctx.graph, ctx.inputs = graph, inputs
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *towards: Tensor | None) -> Any:
        child = ctx.graph.child
        given = [(i, toward) for i, toward in enumerate(towards) if toward is not None]
        inputs = [t for t in ctx.inputs if t.requires_grad]
        if not given or not inputs:
            return (None,) * (3 + max(1, len(ctx.inputs)))
        create = torch.is_grad_enabled()
        question = {"do": "backward", "graph": ctx.graph.number, "outs": [i for i, _ in given], "create": create}
        upstream = [toward for _, toward in given]
        answer, held = child.ask(question | {"modes": modes() | {"grad": True}}, (upstream, inputs))
        if answer["writes"]:
            raise Refused("backward has written to what it was given, or to an earlier result")
        _apply(child, answer)
        found = list(child.understand(lambda: _unpacked(child, answer["result"])))
        if answer.get("graph"):
            graph, outs = answer["graph"]
            _connect(child, graph, outs, [*(t for t in upstream if t.requires_grad), *inputs])
        del held
        of = {id(t): gradient for t, gradient in zip(inputs, found, strict=True)}
        return (None, None, None, *(of.get(id(t)) for t in ctx.inputs))
