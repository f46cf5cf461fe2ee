"""The layer's side: takes a call, and answers with what came of it.

    Worker(connection).run()

Everything that a call could do to the judge in one process it tells here: that it has written to an argument, changed
a list, drawn random numbers or left another state of torch behind. A layer could lie about this; of its values it
cannot, for it never sees what is right.
"""

import contextlib
import queue
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .forbidden import Watch
from .outcomes import NUMBERS, failure, plain
from .state import put_back, taken
from .wire import DTYPES, Closed, Message, Mirror, Trees, receive, send


class Worker:
    """Answers one message after another; calls from other threads of the judge run in threads of their own."""

    def __init__(self, connection: socket.socket, most: int, held: list[str]):
        self.connection, self.most, self.held = connection, most, held
        self.mirror = Mirror(first=1, weak=False)
        self.trees = Trees(self.mirror, _config)
        self.functions: list[Callable[..., Any]] = []
        self.graphs: dict[int, list[Tensor]] = {}
        self.watch = Watch(())
        self._load: Callable[[], Any] = lambda: None
        self._threads: dict[int, queue.Queue[Any]] = {}
        self._count = 0

    def run(self) -> None:
        with contextlib.suppress(Closed):
            while True:
                message, contents = receive(self.connection, self.most)
                with self.mirror.lock:
                    self.mirror.take(message, contents, as_arguments=True)
                    for graph in message["graphs"]:
                        self.graphs.pop(graph, None)
                    job = self._job(message)
                if message["thread"]:
                    self._queue(message["thread"]).put(job)
                else:
                    job()

    def _queue(self, thread: int) -> "queue.Queue[Any]":
        if thread not in self._threads:
            jobs = self._threads[thread] = queue.Queue()
            threading.Thread(target=lambda: [job() for job in iter(jobs.get, None)], daemon=True).start()
        return self._threads[thread]

    def _job(self, message: Message) -> Callable[[], None]:
        """What there is to do; the arguments are taken out now, before the next message changes what they hold."""
        if message["do"] == "load":
            return lambda: self._answer(message, lambda: self._loaded(message))
        if message["do"] == "fresh":
            return lambda: self._answer(message, lambda: {"function": self._new_function()})
        if message["do"] == "backward":
            outs = [self.graphs[message["graph"]][i] for i in message["outs"]]
            towards, inputs = self.trees.unpack(message["args"])
            create = message["create"]

            def gradients() -> Any:
                _refuse_what_is_differentiable_once(outs)
                return torch.autograd.grad(outs, inputs, towards, True, create, allow_unused=True)

            return lambda: self._compute(message, gradients)
        args, kwargs = self.trees.unpack(message["args"])
        function = self.functions[message["function"]]
        return lambda: self._compute(message, lambda: plain(function(*args, **kwargs)))

    def _loaded(self, message: Message) -> Message:
        import llama

        # The layers beneath are given, and may be made of anything.
        self.watch = Watch(message["forbidden"], spared=str(Path(llama.__file__).parent))
        self._load = lambda: load(message["source"], message["layer"])
        info, function = self._load()
        self.functions.append(function)
        return {"info": info | {"held": self.held}}

    def _new_function(self) -> int:
        _, function = self._load()
        self.functions.append(function)
        return len(self.functions) - 1

    def _answer(self, message: Message, make: Callable[[], Message]) -> None:
        """Answer with what is made, or why it could not be."""
        try:
            answer = make()
        except BaseException as error:
            answer = failure(error)
        self._reply(message, answer, [], {})

    def _compute(self, message: Message, function: Callable[[], Any]) -> None:
        with self.mirror.lock:
            before = self.trees.containers()
        answer: Message = {}
        result = None
        with surrounded(message["modes"], answer), self.watch.watching() as seen:
            try:
                result = function()
            except BaseException as error:
                answer |= failure(error)
        answer["forbidden"] = seen
        self._reply(message, answer, before, {"result": result} if "failed" not in answer else {})

    def _reply(self, message: Message, answer: Message, before: Any, made: dict[str, Any]) -> None:
        with self.mirror.lock:
            beginning, contents = self.mirror.outgoing()
            answer |= {"id": message["id"]} | beginning
            numbers = [entry["number"] for entry in message["tensors"]]
            answer["versions"] = self.mirror.versions(numbers)
            if before:
                answer["changed"] = [
                    [n, self._pack(self.trees.by_number(n), answer, contents) | {"is": None}]
                    for n in self.trees.changed(before)
                ]
            if made:
                try:
                    answer["result"] = self._pack(made["result"], answer, contents)
                except RecursionError as error:
                    answer |= failure(error)
                answer["graph"] = self._graph(made["result"], numbers)
            send(self.connection, answer, contents)

    def _graph(self, result: Any, arguments: list[int]) -> Any:
        """Results that lead to a gradient, under a number, so that it can be asked for later."""
        found = [t for t in _tensors(result) if t.requires_grad and not t.is_leaf]
        numbers = [self.mirror.number_of(t) for t in found]
        outs = {n: t for n, t in zip(numbers, found, strict=True) if n is not None and n not in arguments}
        if not outs:
            return None
        self._count += 1
        self.graphs[self._count] = list(outs.values())
        return [self._count, list(outs)]

    def _pack(self, part: Any, answer: Message, contents: list[Tensor]) -> Any:
        """A result; what is no plain tensor or number goes by the name of its kind."""
        kind = type(part)
        if part is None or kind in NUMBERS:
            return part
        if kind is bytes:
            return {"bytes": part.hex()}
        if isinstance(part, np.generic) and part.dtype.kind in "biuf":
            return {"number": str(part.dtype), "is": part.item()}
        if kind is tuple:
            return {"tuple": [self._pack(p, answer, contents) for p in part]}
        if kind is list:
            return {"list": [self._pack(p, answer, contents) for p in part], "is": self.trees.number_of(part)}
        if kind is dict:
            return {"mapping": [[str(k), self._pack(p, answer, contents)] for k, p in part.items()], "is": None}
        if kind is not Tensor:
            return {"odd": kind.__name__[:100], "is_tensor": isinstance(part, Tensor)}
        if part.layout != torch.strided or part.is_nested or part.is_quantized or part.device.type != "cpu":
            kept_as = "nested" if part.is_nested else "quantized" if part.is_quantized else str(part.layout)
            return {"odd": kept_as if part.device.type == "cpu" else str(part.device), "is_tensor": True}
        if str(part.dtype).removeprefix("torch.") not in DTYPES:
            return {"odd": str(part.dtype), "is_tensor": True}
        return {"tensor": self.mirror.describe(part.resolve_conj().resolve_neg(), answer, contents)}


def _tensors(tree: Any) -> Iterator[Tensor]:
    if type(tree) in (list, tuple):
        for part in tree:
            yield from _tensors(part)
    elif type(tree) is dict:
        yield from _tensors(list(tree.values()))
    elif type(tree) is Tensor:
        yield tree


def _refuse_what_is_differentiable_once(outs: list[Tensor]) -> None:
    """Go back to such a gradient as backward() does, which goes through all of the graph: it raises."""
    seen: set[Any] = set()
    new = [out.grad_fn for out in outs]
    while new:
        node = new.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
        new += [parent for parent, _ in node.next_functions]


def load(source: str, layer: str) -> tuple[Message, Callable[..., Any]]:
    """The layer as `pytest --impl` loads it, and what is known of it, from its own file alone."""
    import inspect

    from llama import implementation

    loaded = implementation.load(source, only=layer)
    function = loaded.layers.get(layer)
    if function is None:
        raise implementation.ImplementationError(f"{source} defines no {layer}")
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    claims = loaded.claims.get(layer)
    return {
        "file": loaded.files[layer],
        "stub": layer in loaded.stubs,
        "unloaded": loaded.unloaded.get(layer, ""),
        "claims": str(claims) if claims else "",
        "names": names,
        "left_out": loaded.left_out,
    }, function


def _config(**fields: Any) -> Any:
    from llama.model.config import LlamaConfig

    return LlamaConfig(**fields)


@contextlib.contextmanager
def surrounded(modes: Message, answer: Message) -> Iterator[None]:
    """A call within the judge's modes. What it leaves another is told in the answer, and put back."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[modes["default_dtype"]])
    if torch.get_num_threads() != modes["threads"]:
        torch.set_num_threads(modes["threads"])
    cast = torch.autocast("cpu", DTYPES[modes["autocast"]]) if modes["autocast"] else contextlib.nullcontext()
    try:
        with torch.inference_mode(modes["inference"]), torch.set_grad_enabled(modes["grad"]), cast:
            before = taken()
            drawn = random.getstate(), torch.get_rng_state()
            yield
            answer["left"] = {
                name: now if isinstance(now, int) else str(now).removeprefix("torch.")
                for name, now in put_back(before).items()
            }
            answer["drawn"] = [random.getstate() != drawn[0], not torch.equal(torch.get_rng_state(), drawn[1])]
    finally:
        torch.set_default_dtype(dtype)


def silence() -> None:
    """What a layer prints goes nowhere: a flood of it would fill the judge's memory."""
    import os
    import warnings

    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    sys.breakpointhook = lambda *args, **kwargs: None
