"""The bugs that people really make, layer by layer: `zoo/model/rms_norm.py` holds those of `rms_norm`.

Each public function there is one bug: it has the layer's signature, and one mistake. The first paragraph of
its docstring completes the sentence "Your output is exactly what you get when ..."; below stand why it is
tempting and where it was seen. A failing layer is compared with them (tests/judge/telling/diagnosis.py), and
`pytest --zoo` shows which tests kill which bug. kernels.py holds what several bugs share: how kernels go wrong with
memory and with gradients.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from llama.implementation import Implementation
from llama.layers import CHAPTER, LAYERS


@dataclass(frozen=True)
class Bug:
    layer: str
    name: str
    function: Callable[..., Any]

    @property
    def clause(self) -> str:
        """`eps is added outside the square root.`"""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def tempting(self) -> str:
        """Why people do it, in a sentence or two; nothing where the docstring does not say."""
        paragraphs = (inspect.getdoc(self.function) or "").split("\n\n")[1:]
        why = next((p for p in paragraphs if p.startswith("Tempting: ")), "").removeprefix("Tempting: ")
        return why.partition("\nSeen: ")[0].replace("\n", " ")

    @property
    def implementation(self) -> Implementation:
        return Implementation(self.name, {self.layer: self.function})


def bugs(layer: str) -> list[Bug]:
    """All bugs of that layer, as new functions: what one of them keeps between calls is not shared."""
    module = _fresh(layer)
    functions = [(name, f) for name, f in vars(module).items() if inspect.isfunction(f) and not name.startswith("_")]
    return [Bug(layer, name, f) for name, f in functions if f.__module__ == module.__name__ and name != "probes"]


def probes(layer: str) -> list[Any]:
    """What else tells the bugs of that layer apart: `probes()` in its file, arguments or functions of the layer."""
    return getattr(_fresh(layer), "probes", list)()


def everything() -> list[Bug]:
    return [bug for layer in LAYERS for bug in bugs(layer)]


def _fresh(layer: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"zoo_{layer}", Path(__file__).parent / CHAPTER[layer] / f"{layer}.py"
    )
    assert spec is not None  # a .py file has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
