"""What code of others must leave as it is: the functions that the judge relies on, and how torch computes.

    surroundings.take()                  # before the first line of it runs
    with surroundings.left_alone("the layer"):
        result = function(*args)
    surroundings.refuse_changes("the layer")

What is another afterwards is put back, so that the judge and the report are right, and refused in a sentence.
"""

import builtins
import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import is_
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from llama.implementation import Implementation
from tests.judge.apart import state
from tests.judge.guards.endings import Refused, is_running
from tests.judge.tolerances import TOLERANCES

LIBRARIES: tuple[Any, ...] = (builtins, math, np, torch, torch.Tensor, torch.nn.functional, torch.autograd)
SUITE = ("tests", "llama")
TOOLS = ("_pytest", "pytest", "pluggy")
OF_HYPOTHESIS = ("hypothesis", "hypothesis.core", "hypothesis._settings", "hypothesis.stateful")
"""What decides whether, and how often, a property is tried."""
OTHERS = ("tests.cheats", "tests.peers", "tests.zoo")
"""What stands for code of others, and may change itself."""
RENEWED = ("manual_seed",)
"""What torch.compile itself replaces."""
HOUSE = Path(__file__).parents[3]


class Snapshot:
    """The functions of some modules and classes, and with `numbers` their numbers and tuples."""

    def __init__(self, owners: Iterable[Any], numbers: bool = True):
        self.owners = [(owner, kept) for owner in owners if (kept := _kept(owner, numbers))]
        self.classes = [(owner, vars(owner)) for owner, _ in self.owners if isinstance(owner, type)]
        self.names = [set(namespace) for _, namespace in self.classes]
        # Most hold nothing that changes by itself; what they hold is gone through without a look-up, in microseconds.
        self.still, self.lively = list(self.owners), [(owner, kept) for owner, kept in self.owners[:0]]
        self._take()

    def _take(self) -> None:
        self.views = [vars(owner).values() for owner, _ in self.still]
        self.then = list(chain.from_iterable(self.views))
        self.sizes = list(map(len, self.views))

    def _is_still(self) -> bool:
        return (
            self.sizes == list(map(len, self.views))
            and all(map(is_, chain.from_iterable(self.views), self.then))
            and not any(True for owner, kept in self.lively for _ in _differing(owner, kept))
        )

    def restore(self) -> list[str]:
        """Put back what is another by now, and say what that was."""
        if self._is_still():
            return []
        changed = self._without_additions()
        for owner, kept in self.owners:
            for name in list(_differing(owner, kept)):
                changed.append(f"{_called(owner)}.{name}")
                setattr(owner, name, kept[name])
        then = iter(self.then)
        for pair, view, size in zip(list(self.still), self.views, self.sizes, strict=True):
            before = list(islice(then, size))
            if len(view) != size or not all(map(is_, view, before)):
                self.still.remove(pair)
                self.lively.append(pair)
        self._take()
        return changed

    def _without_additions(self) -> list[str]:
        """Take away what a class has gained, with which it would hide what it inherits."""
        gained = []
        for (owner, namespace), names in zip(self.classes, self.names, strict=True):
            for name in namespace.keys() - names:
                if not name.startswith("_"):  # what is kept for later, as the values of a lazy attribute
                    gained.append(f"{_called(owner)}.{name}")
                    delattr(owner, name)
                else:
                    names.add(name)
        return gained


def _differing(owner: Any, kept: Mapping[str, Any]) -> Iterator[str]:
    now = vars(owner)
    return (name for name, value in kept.items() if now.get(name) is not value)


def _called(owner: Any) -> str:
    if isinstance(owner, Implementation):
        return f"the judge's {owner.name}"
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)


def _kept(owner: Any, numbers: bool) -> dict[str, Any]:
    kinds = (property, staticmethod, classmethod, *((int, float, tuple) if numbers else ()))
    # Not the classes of torch: some follow its default dtype.
    of_torch = any(owner is library for library in LIBRARIES)
    callables = {
        n: v
        for n, v in vars(owner).items()
        if callable(v) and n not in RENEWED and not (of_torch and isinstance(v, type))
    }
    return callables | {n: v for n, v in vars(owner).items() if isinstance(v, kinds)}


class Surroundings:
    """All that is left alone."""

    def __init__(self) -> None:
        self.libraries = Snapshot(LIBRARIES)
        self.tolerances = dict(TOLERANCES)
        self.written: list[str] = []
        self.take_modules()

    def take_modules(self) -> None:
        """The suite and its tools, as far as they are imported by now."""
        suite = _modules(*SUITE)
        tools = _modules(*TOOLS) + [sys.modules[name] for name in OF_HYPOTHESIS if name in sys.modules]
        judges = {id(v): v for m in suite for v in vars(m).values() if isinstance(v, Implementation)}
        self.suite = Snapshot([*suite, *(c for m in suite for c in _classes(m)), *judges.values()])
        # Numbers of theirs count what they do.
        self.tools = Snapshot([*tools, *(c for m in tools for c in _classes(m))], numbers=False)
        self.code = [(f, f.__code__, f.__defaults__) for m in suite for f in _functions(m)]

    def refuse(self, what: str) -> None:
        """Put back what is another, and raise Refused if anything was."""
        changed = self.libraries.restore() + self.suite.restore() + self.tools.restore()
        for function, code, defaults in self.code:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                changed.append(f"{function.__module__}.{function.__qualname__}")
                function.__code__, function.__defaults__ = code, defaults
        if self.tolerances != TOLERANCES:
            changed.append("the judge's tolerances")
            TOLERANCES.clear()
            TOLERANCES.update(self.tolerances)
        if changed:
            raise Refused(f"{what} replaced {', '.join(changed[:3])}, which others use too")
        if self.written:
            raise Refused(f"{what} wrote to {self.written.pop()}, which is a file of the suite")


def _modules(*packages: str) -> list[ModuleType]:
    names = [name for name in list(sys.modules) if name.partition(".")[0] in packages and not name.startswith(OTHERS)]
    return [module for name in names if isinstance(module := sys.modules[name], ModuleType)]


def _classes(module: ModuleType) -> list[type]:
    return [v for v in list(vars(module).values()) if isinstance(v, type) and v.__module__ == module.__name__]


def _functions(module: ModuleType) -> list[FunctionType]:
    scopes = [vars(module), *(vars(c) for c in _classes(module))]
    found = [v for scope in scopes for v in scope.values() if isinstance(v, FunctionType)]
    return [f for f in found if f.__module__ == module.__name__]


_taken: Surroundings | None = None


def take() -> None:
    """Before code of others is imported: what is changed from here on is put back and refused."""
    global _taken
    _taken = Surroundings()
    sys.addaudithook(_keep_files)


def take_modules() -> None:
    """Again where more of the suite has been imported."""
    if _taken is not None:
        _taken.take_modules()


def refuse_changes(what: str) -> None:
    """Put back what the suite relies on where it is another, and raise Refused. It takes a millisecond."""
    if _taken is not None:
        _taken.refuse(what)


@contextlib.contextmanager
def left_alone(what: str) -> Iterator[None]:
    """Code of others that must leave the state of torch and Python as it was; without `take` nothing is looked at."""
    if _taken is None:
        yield
        return
    before = state.taken()
    try:
        yield
    finally:
        for name in state.put_back(before):
            raise Refused(f"{what} changed {name}, with which others compute too")


def _keep_files(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: code of others cannot write to the files of the suite."""
    if event not in ("open", "os.rename", "os.remove") or not is_running() or _taken is None:
        return
    if event == "open" and not (isinstance(args[1], str) and set("wax+") & set(args[1])):
        return
    for path in args[:1] if event == "open" else args[:2]:
        if isinstance(path, str | bytes | os.PathLike):
            file = Path(os.fsdecode(path)).absolute()
            if any(file.is_relative_to(HOUSE / room) for room in ("tests", "src")) and "__pycache__" not in file.parts:
                _taken.written.append(file.relative_to(HOUSE).as_posix())
                raise PermissionError(f"{file} is a file of the suite")
