"""`pytest --impl NAME --apart`: each layer runs in a process of its own, which its code cannot leave.

The judge's process never imports a line of it.
"""

from dataclasses import dataclass, field

import pytest

from llama import implementation
from llama.implementation import ImplementationError
from llama.kata.exam.judging import MEMORY, TIME
from llama.layers import CHAPTER
from tests import peers, zoo
from tests.cases import target
from tests.judge.apart.holding import Limits
from tests.judge.remote import layers as remote
from tests.judge.remote.child import Zygote
from tests.judge.remote.layers import Apart
from tests.session.choosing.keyword import asked_for


@dataclass
class Processes:
    """Plugin of one session: what it has started ends with it."""

    zygote: Zygote
    loaded: list[Apart] = field(default_factory=list)

    def load(self, config: pytest.Config, name: str) -> Apart:
        limits = Limits(config.getoption("time_limit") or TIME, config.getoption("memory_limit") or MEMORY)
        loaded = remote.load(self.zygote, name, limits, config.getoption("forbid"), asked_for(config))
        self.loaded.append(loaded)
        return loaded

    def pytest_report_header(self) -> list[str]:
        held = ", ".join(self.loaded[0].held) if self.loaded and self.loaded[0].held else "limits of time and memory"
        return [f"each layer in a process of its own: {held}"]

    def pytest_unconfigure(self) -> None:
        for one in self.loaded:
            one.end()
        self.zygote.end()


@dataclass(frozen=True)
class Known:
    """What stands for the code of another: `module.function` is the layer."""

    name: str
    layer: str
    module: str
    function: str


def bugs() -> list[Known]:
    return [
        Known(bug.name, bug.layer, f"tests.zoo.{CHAPTER[bug.layer]}.{bug.layer}", bug.name) for bug in zoo.everything()
    ]


def right_ones() -> list[Known]:
    names = peers.PEERS + peers.COMPILED
    pairs = [(name, layer) for name in names for layer in implementation.load(name).layers]
    return [Known(name.rpartition(".")[2], layer, name, layer) for name, layer in pairs]


def start_known(config: pytest.Config, known: list[Known]) -> list[Apart]:
    """Each as if it were a submission. They are made of our own layers, and find them."""
    processes = Processes(Zygote(allowed=["transformers"], withholding=False))
    config.pluginmanager.register(processes)
    found: list[Apart] = []
    for one in known:
        if not asked_for(config) or one.layer in asked_for(config):
            folder = processes.zygote.folder / f"known-{len(found)}"
            folder.mkdir()
            line = f"from {one.module} import {one.function} as {one.layer}\n"
            (folder / f"{one.layer}.py").write_text(line)
            found.append(processes.load(config, str(folder)))
            found[-1].name, found[-1].source = one.name, ""  # nobody practises on it
    return found


def start(config: pytest.Config, names: list[str]) -> list[Apart]:
    """The implementations of --impl. Raises ImplementationError where there is none, UsageError where it cannot be."""
    if target.DEVICE.type != "cpu":
        raise pytest.UsageError("--apart: the processes of layers have no other device than the cpu")
    processes = Processes(Zygote(allowed=config.getoption("allow")))
    config.pluginmanager.register(processes)
    try:
        return [processes.load(config, name) for name in names]
    except ValueError as error:
        raise ImplementationError(str(error)) from error
