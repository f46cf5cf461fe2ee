"""The layers that a name leads to: those of a dotted module, a .py file, or a folder of them."""

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from llama.implementation.arrays import Layer
from llama.layers import LAYERS


class ImplementationError(ValueError):
    """A name that leads to no layers, in one sentence that says what would."""


def layers_of(name: str) -> dict[str, Layer]:
    """The layers that the module, file or folder of that name defines, at least one.

    Raises ImplementationError where there is none, or it fails to import, or a file lacks the layer of its name.
    """
    modules = list(_modules(name))
    for module in modules:
        if (stem := _stem(module)) in LAYERS and not callable(getattr(module, stem, None)) and Path(name).exists():
            there = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
            raise ImplementationError(
                f"{name}: {stem}.py must define {stem}, and defines {', '.join(there) or 'no function'}"
            )
    layers = {layer: function for layer in LAYERS if (function := _find(layer, modules, name)) is not None}
    if not layers:
        raise ImplementationError(f"{name} defines no layer; it must define at least one of {', '.join(LAYERS)}")
    return layers


def _modules(name: str) -> Iterable[ModuleType]:
    """The module of that name, or the modules of that file or folder."""
    path = Path(name)
    if path.is_dir():
        package = _package(path)
    elif path.is_file() and path.suffix == ".py":
        return [_import(name, lambda: _from_file(_alias(path), path))]
    else:
        valid = f"naive, vectorized, fused, a dotted module, a .py file or a folder of them ({name} is none of these)"
        if path.exists() or not all(part.isidentifier() for part in name.split(".")):
            raise ImplementationError(f"an implementation is {valid}")
        try:
            missing = importlib.util.find_spec(name) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise ImplementationError(f"an implementation is {valid}")
        package = _import(name, lambda: importlib.import_module(name))
    within = [file for folder in getattr(package, "__path__", ()) for file in sorted(Path(folder).glob("*.py"))]
    stems = [file.stem for file in within if file.stem.isidentifier() and file.stem not in ("__init__", "__main__")]
    submodules = [f"{package.__name__}.{stem}" for stem in stems]
    return [package, *(_import(name, functools.partial(importlib.import_module, module)) for module in submodules)]


def _import(name: str, run: Callable[[], ModuleType]) -> ModuleType:
    try:
        return run()
    except (Exception, SystemExit) as error:  # a script may end itself when it is imported
        raise ImplementationError(f"{name} fails to import: {_where(error)}{type(error).__name__}: {error}") from error


def _where(error: BaseException) -> str:
    """The place in the file that was imported: `rope.py, line 3: `."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    if isinstance(error, SyntaxError) or frames[-1].filename == __file__:
        return ""  # the error says so itself
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: "


def _alias(path: Path) -> str:
    """A module name of its own for what lies at `path`, so that it cannot hide an installed module."""
    return f"implementation_{abs(hash(path.resolve())):x}_{path.stem}"


def _package(path: Path) -> ModuleType:
    """The folder as a package, so that its files can import each other (`from .rope import rope`)."""
    init = path / "__init__.py"
    if init.exists():
        return _import(str(path), lambda: _from_file(_alias(path), init, [str(path.resolve())]))
    package = ModuleType(_alias(path))
    package.__path__ = [str(path.resolve())]
    sys.modules[package.__name__] = package
    return package


def _from_file(name: str, path: Path, search: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    assert spec is not None  # a .py file has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _find(layer: str, modules: Iterable[ModuleType], name: str) -> Layer | None:
    found: dict[str, Layer] = {}
    for module in modules:
        function = getattr(module, layer, None)
        if callable(function) and not _is_tool(layer, function, module):
            found[_stem(module)] = function
    if layer in found:
        return found[layer]
    # A layer that is imported into another file is one and the same object in both.
    distinct = {id(function) for function in found.values()}
    if len(distinct) > 1:
        raise ImplementationError(f"{name} defines {layer} in {' and in '.join(sorted(found))}: which one is meant?")
    return next(iter(found.values()), None)


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
