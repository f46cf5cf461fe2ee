"""The layers that a name leads to: those of a dotted module, a .py file, or a folder of them."""

import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from llama.implementation import neighbours, recognition
from llama.implementation.arrays import Layer
from llama.implementation.source import layers_in
from llama.layers import LAYERS


class ImplementationError(ValueError):
    """A name that leads to no layers, in one sentence that says what would."""


@dataclass(frozen=True)
class Unloaded:
    """In place of a layer that could not be loaded: whoever calls it is told why."""

    file: str
    sentence: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ImplementationError(self.sentence)


@dataclass
class Found:
    """What a name leads to."""

    layers: dict[str, Layer]
    left_out: list[str] = field(default_factory=list)
    """What is left out, and why, each in a sentence: files that fail to import, and what is nearly a layer."""
    files: dict[str, str] = field(default_factory=dict)
    """The file in which a layer has its name, wherever its code lies."""
    claims: dict[str, str] = field(default_factory=dict)
    """What its author claims of a layer: the text CLAIMS in its file, else in the folder's `__init__.py`."""


def layers_of(name: str, only: str = "") -> Found:
    """The layers that the module, file or folder of that name defines, at least one.

    With `only`, the files of a folder whose text does not speak of that layer are not imported.

    A file that fails to import costs the layers that it would define, which are then Unloaded. Raises
    ImplementationError where there is no layer at all.
    """
    modules, broken = _modules(name, only)
    unloaded = {layer: one for one in broken for layer in layers_in(Path(one.file))}
    if Path(name).exists():
        for module in modules:
            if (stem := _stem(module)) in LAYERS and not callable(getattr(module, stem, None)):
                unloaded[stem] = Unloaded(str(module.__file__), _lacks(stem, module))
    pairs = {layer: pair for layer in LAYERS if (pair := _find(layer, modules, name)) is not None}
    found = {layer: function for layer, (function, _) in pairs.items()}
    for layer, (function, module) in pairs.items():
        if sentence := recognition.problem(layer, function):
            found[layer] = Unloaded(_file(module), f"{Path(_file(module)).name}: {sentence}")
    # The file of its own name is what a layer is looked for in first.
    own = {layer: one for layer, one in unloaded.items() if Path(one.file).stem == layer}
    layers = unloaded | found | own
    strangers = [stranger for module in modules for stranger in recognition.strangers(module, layers)]
    if not layers:
        if broken:
            raise ImplementationError(f"{name} fails to import: {broken[0].sentence}")
        if strangers:
            raise ImplementationError(f"{name} defines no layer. {recognition.advice(strangers)}")
        raise ImplementationError(f"{name} defines no layer; it must define at least one of {', '.join(LAYERS)}")
    texts = {layer: text for layer, (_, module) in pairs.items() if (text := _claims(module, modules)) is not None}
    left_out = [one.sentence for one in broken if one not in layers.values()]
    left_out += [f"{stranger}, which would be a layer with this line: {line}" for stranger, line in strangers]
    return Found(layers, left_out, {layer: _file(module) for layer, (_, module) in pairs.items()}, texts)


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _claims(module: ModuleType, modules: list[ModuleType]) -> str | None:
    package = [other for other in modules if hasattr(other, "__path__")]
    return next((text for of in (module, *package) if isinstance(text := getattr(of, "CLAIMS", None), str)), None)


def _lacks(layer: str, module: ModuleType) -> str:
    there = [n for n, f in vars(module).items() if callable(f) and getattr(f, "__module__", "") == module.__name__]
    lines = [line for _, line in recognition.strangers(module) if f"{layer} = " in line]
    known = f". Write: {lines[0]}" if lines else ""
    return f"{layer}.py must define {layer}, and defines {', '.join(there) or 'no function'}{known}"


def _modules(name: str, only: str) -> tuple[list[ModuleType], list[Unloaded]]:
    """The module of that name, or the modules of that file or folder; and the files that fail to import."""
    modules: list[ModuleType] = []
    broken: list[Unloaded] = []

    def add(file: str, run: Callable[[], ModuleType]) -> None:
        try:
            modules.append(run())
        except (Exception, SystemExit) as error:  # a script may end itself when it is imported
            broken.append(Unloaded(file, _where(error) + _first_line(error)))

    path = Path(name)
    if path.is_file() and path.suffix == ".py":
        add(str(path), lambda: neighbours.module_of(neighbours.package_of(path), path.resolve()))
        return modules, broken
    if path.is_dir():
        package = neighbours.package_of(path)
        add(str(path / "__init__.py"), lambda: neighbours.with_init(package))
        folders = [str(path.resolve())]
    else:
        _refuse_what_is_no_module(name)
        package = name
        add(name, lambda: importlib.import_module(name))
        folders = [folder for module in modules for folder in getattr(module, "__path__", ())]
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.py"))]
    for file in [file for file in files if only in layers_in(file)] or files if only else files:
        if file.stem.isidentifier() and file.stem not in ("__init__", "__main__"):
            submodule = f"{package}.{file.stem}"
            add(str(file), lambda submodule=submodule: importlib.import_module(submodule))  # type: ignore[misc]
    return modules, broken


def _refuse_what_is_no_module(name: str) -> None:
    valid = f"naive, vectorized, fused, a dotted module, a .py file or a folder of them ({name} is none of these)"
    if Path(name).exists() or not all(part.isidentifier() for part in name.split(".")):
        raise ImplementationError(f"an implementation is {valid}")
    try:
        missing = importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise ImplementationError(f"an implementation is {valid}")


def _where(error: BaseException) -> str:
    """The place in the file that was imported: `rope.py, line 3: `."""
    if isinstance(error, SyntaxError):
        place = error.filename, error.lineno
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        place = frames[-1].filename, frames[-1].lineno
    file, line = place
    return f"{Path(file).name}, line {line}: " if file and line and Path(file).parent != Path(__file__).parent else ""


def _first_line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)  # without the place, which has been said
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0]}"


def _find(layer: str, modules: Iterable[ModuleType], name: str) -> tuple[Layer, ModuleType] | None:
    """The layer, and the module that it is defined in, or imported into."""
    found: dict[str, tuple[Layer, ModuleType]] = {}
    for module in modules:
        function = getattr(module, layer, None)
        if callable(function) and not _is_tool(layer, function, module):
            found[_stem(module)] = function, module
    if layer in found:
        return found[layer]
    # A layer that is imported into another file is one and the same object in both.
    distinct = {id(function) for function, _ in found.values()}
    if len(distinct) > 1:
        raise ImplementationError(f"{name} defines {layer} in {' and in '.join(sorted(found))}: which one is meant?")
    # Of a folder, the file rather than __init__.py, which has it from there.
    return min(found.values(), key=lambda pair: hasattr(pair[1], "__path__"), default=None)


def _is_tool(layer: str, function: Layer, module: ModuleType) -> bool:
    """Whether it is torch's own, imported to write another layer with: `from torch import softmax` in attention.py.

    In a file of its name, or in a module that defines no layer itself, torch's function is what is meant.
    """
    if not _is_torchs(layer, function) or _stem(module) == layer:
        return False
    own = [getattr(module, other, None) for other in LAYERS]
    return any(callable(f) and not _is_torchs(other, f) for other, f in zip(LAYERS, own, strict=True))


def _is_torchs(layer: str, function: Layer) -> bool:
    return any(function is getattr(place, layer, None) for place in (torch, F))


def _stem(module: ModuleType) -> str:
    return Path(getattr(module, "__file__", None) or module.__name__).stem
