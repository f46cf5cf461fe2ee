"""Messages between the judge and a layer in another process, and the tensors that both sides hold.

A message is JSON with the bytes of tensors beside it, as safetensors writes them: nothing that comes from the other
side is ever executed.

Each side has a Mirror. It knows every tensor that has gone from one side to the other by a number, and the memory that
the tensor lies in by another. So a tensor that is passed twice is the same object over there, two that share memory
share it there, and each message first brings what has been written to memory since the last one. A layer that changes
its arguments, writes each result into one buffer, or remembers a tensor whose contents have changed is seen to do so.
"""

import dataclasses
import json
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

Message = dict[str, Any]
MOST_JSON = 2**24
"""Bytes of a message without its tensors."""
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_HEAD = struct.Struct("<QQ")


class Forged(Exception):
    """A message that the other side cannot have meant."""


class Closed(Exception):
    """The other side is gone."""


def send(to: socket.socket, message: Message, contents: Iterable[Tensor] = ()) -> None:
    """`contents` are tensors of bytes."""
    body = json.dumps(message, separators=(",", ":")).encode()
    named = {str(i): t for i, t in enumerate(contents)}
    blob = safetensors.torch.save(named) if named else b""
    try:
        to.sendall(_HEAD.pack(len(body), len(blob)) + body)
        if blob:
            to.sendall(blob)
    except OSError as error:
        raise Closed from error


def receive(of: socket.socket, most: int, left: Callable[[], float] | None = None) -> tuple[Message, list[Tensor]]:
    """A message, with at most so many bytes of tensors. `left` says how many seconds there are still for it.

    Raises Forged, Closed, and TimeoutError.
    """
    of_json, of_tensors = _HEAD.unpack(_exactly(of, _HEAD.size, left))
    if of_json > MOST_JSON or of_tensors > most:
        raise Forged(f"a message of {of_json + of_tensors} bytes")
    body, blob = _exactly(of, of_json, left), _exactly(of, of_tensors, left)
    try:
        message = json.loads(body)
        found = safetensors.torch.load(bytes(blob)) if blob else {}
        contents = [found[str(i)] for i in range(len(found))]
    except (ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise Forged(f"what is no message: {error}") from error
    if not isinstance(message, dict) or any(t.dtype != torch.uint8 or t.ndim != 1 for t in contents):
        raise Forged("what is no message")
    return message, contents


def _exactly(of: socket.socket, count: int, left: Callable[[], float] | None) -> bytearray:
    found = bytearray(count)
    view = memoryview(found)
    while view:
        try:
            if left is not None:
                of.settimeout(max(left(), 0.001))
            read = of.recv_into(view)
        except TimeoutError:
            if left is not None and left() > 0:
                continue  # it has had to wait for others
            raise
        except OSError as error:
            raise Closed from error
        if not read:
            raise Closed
        view = view[read:]
    return found


def in_bytes(storage: torch.UntypedStorage) -> Tensor:
    """The memory as bytes, whatever lies in it."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


@dataclass
class _Memory:
    storage: torch.UntypedStorage
    bytes: Tensor
    """The same memory."""
    known: Tensor
    """What the other side holds by now."""
    tensors: set[int] = field(default_factory=set)
    """Those that lie in it."""


@dataclass
class _Held:
    tensor: Any
    """A weak reference where the other side decides how long it lives."""
    memory: int
    identity: int


class Mirror:
    """The tensors that one side has in common with the other. Numbers from one side are even, from the other odd."""

    def __init__(self, first: int, weak: bool):
        self._next, self._weak = first, weak
        self._memories: dict[int, _Memory] = {}
        self._held: dict[int, _Held] = {}
        self._by_identity: dict[int, int] = {}
        self._by_pointer: dict[int, int] = {}
        self._dropped: list[int] = []
        self.lock = threading.RLock()

    # What is sent.

    def outgoing(self) -> tuple[Message, list[Tensor]]:
        """The beginning of a message: what has been dropped, and what has been written to since the last one."""
        dropped, self._dropped = self._dropped, []
        for number in dropped:
            self.drop(number)
        writes, contents = [], []
        for number, memory in self._memories.items():
            if not torch.equal(memory.bytes, memory.known):
                memory.known = memory.bytes.clone()
                writes.append(number)
                contents.append(memory.known)
        return {"dropped": dropped, "writes": writes, "memories": [], "tensors": []}, contents

    def describe(self, tensor: Tensor, message: Message, contents: list[Tensor]) -> int:
        """Its number; what the other side does not know of it goes into the message."""
        number = self.number_of(tensor)
        if number is None:
            storage = tensor.untyped_storage()
            memory = self._by_pointer.get(storage._cdata)
            if memory is None:
                memory = self._new_number()
                known = in_bytes(storage).clone()
                self._add_memory(memory, storage, known)
                message["memories"].append([memory, storage.nbytes()])
                contents.append(known)
            number = self._new_number()
            self._hold(number, tensor, memory)
        if all(entry["number"] != number for entry in message["tensors"]):
            message["tensors"].append(
                {
                    "number": number,
                    "memory": self._held[number].memory,
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "size": list(tensor.shape),
                    "stride": list(tensor.stride()),
                    "offset": tensor.storage_offset(),
                    "requires_grad": tensor.requires_grad,
                    "is_leaf": tensor.is_leaf,
                    "inference": tensor.is_inference(),
                    "parameter": type(tensor) is torch.nn.Parameter,
                    "version": 0 if tensor.is_inference() else tensor._version,
                }
            )
        return number

    # What is received.

    def take(self, message: Message, contents: list[Tensor], as_arguments: bool) -> list[Tensor]:
        """Do what the beginning of a message says. Gives its tensors, which nobody else may hold yet.

        Arguments ask for gradients as they do on the other side, and count the same writes; of results the caller
        decides.
        """
        given = iter(contents)
        for number in message["dropped"]:
            self.drop(number)
        for number in message["writes"]:
            memory, new = self._memories[number], next(given)
            if new.numel() != memory.bytes.numel():
                raise Forged("what does not fill its memory")
            memory.bytes.copy_(new)
            memory.known = new
        for number, size in message["memories"]:
            new = next(given)
            if new.numel() != size or number in self._memories:
                raise Forged("what does not fill its memory")
            storage = torch.UntypedStorage(size)
            self._add_memory(number, storage, new)
            self._memories[number].bytes.copy_(new)
        return [self._take_tensor(entry, as_arguments) for entry in message["tensors"]]

    def _take_tensor(self, entry: Message, as_arguments: bool) -> Tensor:
        number = entry["number"]
        tensor = self.tensor(number) if number in self._held else None
        if tensor is None:
            memory = self._memories[entry["memory"]]
            dtype, size, stride, offset = DTYPES[entry["dtype"]], entry["size"], entry["stride"], entry["offset"]
            _check_place(memory.storage.nbytes() // dtype.itemsize, size, stride, offset)
            with torch.inference_mode(bool(entry["inference"])), torch.no_grad():
                tensor = torch.empty(0, dtype=dtype).set_(memory.storage, offset, size, stride)
            if as_arguments and entry["parameter"]:
                tensor = torch.nn.Parameter(tensor, entry["requires_grad"])
            self._hold(number, tensor, entry["memory"])
        if as_arguments and not tensor.is_inference():
            if tensor.requires_grad != entry["requires_grad"] and tensor.is_leaf:
                tensor.requires_grad_(entry["requires_grad"])
            set_version(tensor, entry["version"])
        return tensor

    def tensor(self, number: int) -> Tensor:
        held = self._held[number].tensor
        found: Tensor = held() if self._weak else held
        return found

    def number_of(self, tensor: Tensor) -> int | None:
        number = self._by_identity.get(id(tensor))
        return number if number is not None and self.tensor(number) is tensor else None

    def drop(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is None:
            return
        if self._by_identity.get(held.identity) == number:
            del self._by_identity[held.identity]
        memory = self._memories[held.memory]
        memory.tensors.discard(number)
        if not memory.tensors:
            del self._memories[held.memory]
            self._by_pointer.pop(memory.storage._cdata, None)

    def versions(self, numbers: Iterable[int]) -> dict[str, int]:
        return {str(n): t._version for n in numbers if not (t := self.tensor(n)).is_inference()}

    def _new_number(self) -> int:
        self._next += 2
        return self._next

    def _add_memory(self, number: int, storage: torch.UntypedStorage, known: Tensor) -> None:
        self._memories[number] = _Memory(storage, in_bytes(storage), known)
        self._by_pointer[storage._cdata] = number

    def _hold(self, number: int, tensor: Tensor, memory: int) -> None:
        reference = weakref.ref(tensor, self._gone(number)) if self._weak else tensor
        self._held[number] = _Held(reference, memory, id(tensor))
        self._by_identity[id(tensor)] = number
        self._memories[memory].tensors.add(number)

    def _gone(self, number: int) -> Callable[[Any], None]:
        def forget(reference: Any) -> None:
            held = self._held.get(number)
            if held is not None and held.tensor is reference:
                self._dropped.append(number)

        return forget


def set_version(tensor: Tensor, version: int) -> None:
    """How often it has been written to, as torch counts it."""
    if tensor._version != version:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))


def _check_place(elements: int, size: list[int], stride: list[int], offset: int) -> None:
    """Raise Forged where a tensor would lie outside of its memory, which torch would enlarge."""
    numbers = [*size, *stride, offset]
    if len(size) != len(stride) or len(size) > 64 or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise Forged("a tensor of no size")
    if all(size) and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= elements:
        raise Forged("a tensor outside of its memory")


class Trees:
    """Arguments and results as JSON, and back. A list or a mapping that is passed again is the same over there."""

    MOST = 32
    """So many lists and mappings are known at a time."""

    def __init__(self, mirror: Mirror, config: Callable[..., Any]):
        self.mirror, self._config = mirror, config
        self._containers: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._count = 0

    def pack(self, tree: Any, message: Message, contents: list[Tensor]) -> Any:
        """Raises TypeError for what cannot be passed."""
        if tree is None or type(tree) in (bool, int, float, str):
            return tree
        if isinstance(tree, Tensor):
            return {"tensor": self.mirror.describe(tree, message, contents)}
        if type(tree) is bytes:
            return {"bytes": tree.hex()}
        if isinstance(tree, torch.dtype):
            return {"dtype": str(tree).removeprefix("torch.")}
        if isinstance(tree, np.generic):
            return {"number": str(tree.dtype), "is": tree.item()}
        if type(tree) is tuple:
            return {"tuple": [self.pack(part, message, contents) for part in tree]}
        if type(tree) is list:
            return {"list": [self.pack(part, message, contents) for part in tree], "is": self._number(tree)}
        if isinstance(tree, Mapping):
            pairs = [[self.pack(part, message, contents) for part in pair] for pair in tree.items()]
            return {"mapping": pairs, "is": self._number(tree)}
        if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
            return {"config": dataclasses.asdict(tree)}
        raise TypeError(f"a {type(tree).__name__} cannot be passed to another process")

    def unpack(self, packed: Any) -> Any:
        if not isinstance(packed, dict):
            return packed
        if "tensor" in packed:
            return self.mirror.tensor(packed["tensor"])
        if "bytes" in packed:
            return bytes.fromhex(packed["bytes"])
        if "dtype" in packed:
            return DTYPES[packed["dtype"]]
        if "number" in packed:
            return np.dtype(packed["number"]).type(packed["is"])
        if "tuple" in packed:
            return tuple(map(self.unpack, packed["tuple"]))
        if "list" in packed:
            return self._container(packed["is"], [self.unpack(part) for part in packed["list"]])
        if "mapping" in packed:
            return self._container(packed["is"], {self.unpack(k): self.unpack(value) for k, value in packed["mapping"]})
        return self._config(**packed["config"])

    def containers(self) -> dict[int, Any]:
        """What lists and mappings hold: their parts, themselves and not as equals."""
        return {n: [*(c.items() if isinstance(c, dict) else enumerate(c))] for n, c in self._containers.items()}

    def changed(self, before: dict[int, Any]) -> list[int]:
        """Those that hold something else than then."""
        return [n for n, now in self.containers().items() if n in before and not _alike(before[n], now)]

    def by_number(self, number: int) -> Any:
        return self._containers[number]

    def number_of(self, container: Any) -> int | None:
        """That of a list or a mapping which both sides know."""
        number = self._numbers.get(id(container))
        return number if number is not None and self._containers[number] is container else None

    def _number(self, container: Any) -> int:
        number = self._numbers.get(id(container))
        if number is None:
            self._count += 1
            number = self._count
            self._add(number, container)
        return number

    def _container(self, number: int | None, contents: Any) -> Any:
        """The one of that number, with these contents; a new one without a number."""
        if number is None:
            return contents
        container = self._containers.get(number)
        if container is None:
            self._add(number, contents)
            return contents
        if isinstance(contents, list):
            container[:] = contents
        else:
            container.clear()
            container.update(contents)
        return container

    def _add(self, number: int, container: Any) -> None:
        self._containers[number], self._numbers[id(container)] = container, number
        if len(self._containers) > self.MOST:
            oldest = next(iter(self._containers))
            del self._numbers[id(self._containers.pop(oldest))]


def _alike(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(k == m and v is w for (k, v), (m, w) in zip(a, b, strict=True))
