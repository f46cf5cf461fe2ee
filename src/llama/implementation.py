"""An implementation is a named set of layer functions: ours, or anybody's.

    layers = implementation.load("fused")            # naive, vectorized or fused: all layers
    layers = implementation.load("my_llama")         # a dotted module, a .py file or a folder of them
    layers.rms_norm(x, weight)                       # torch in, torch out
    layers.completed("vectorized")                   # what it lacks, taken from another

A file, module or folder must define at least one layer by its name. In a folder, `rms_norm.py` is asked
first for `rms_norm`, then any other file. Layers that are not defined are simply not there.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llama.layers import LAYERS
from llama.layers.contract import unchecked

OURS = ("naive", "vectorized", "fused")
COMPOSED = ("self_attention", "decoder_layer", "llama")
INTERNAL = ("layers", "cache", "dropout")
"""Parameters of our own composed layers that are not in their contract."""

Layer = Callable[..., Any]


class ImplementationError(ValueError):
    """A name that leads to no layers, in one sentence that says what would."""


class Implementation:
    """Layer functions as attributes, with `name` and, layer by layer, the `files` they stand in.

    Composed layers that are not given are the project's own, over these layers, as soon as `compose` is
    true; with `compose` false they are not there. `source` is what it can be loaded from again.
    """

    def __init__(self, name: str, layers: Mapping[str, Layer], compose: bool = False, source: str = ""):
        self.name = name
        self.source = source
        self._given = dict(layers)
        if compose:
            layers = {layer: functools.partial(_module(layer).compose, self) for layer in COMPOSED} | self._given
        self._take(layers)

    def _take(self, layers: Mapping[str, Layer]) -> None:
        self.layers = {layer: layers[layer] for layer in LAYERS if layer in layers}
        vars(self).update(self.layers)

    def __getattr__(self, layer: str) -> Layer:
        raise AttributeError(f"implementation {self.__dict__.get('name')} does not define {layer}")

    def __repr__(self) -> str:
        return f"<implementation {self.name}: {', '.join(self.layers)}>"

    @functools.cached_property
    def stubs(self) -> frozenset[str]:
        """The layers that are not written yet: all that they do is to raise NotImplementedError."""
        return frozenset(layer for layer, function in self._given.items() if _is_stub(function))

    @property
    def files(self) -> dict[str, str]:
        """The file of each layer."""
        return {name: _file(layer) for name, layer in self.layers.items()}

    def completed(self, other: str = "vectorized") -> "Implementation":
        """All layers: these, and those of `other` where there are none, or stubs."""
        return Implementation(self.name, load(other)._given | self._written, compose=True, source=self.source)

    def unchecked(self) -> "Implementation":
        """The same layers, our own without their contracts: for a model, which knows that its sizes fit.

        A contract takes microseconds, as does a layer where a single token goes through it.
        """
        return self.changed(lambda name, layer: unchecked(layer))

    def changed(self, change: Callable[[str, Layer], Layer]) -> "Implementation":
        """Each layer as `change` makes it of its name and what it is; those that we compose, over what it makes."""
        new = Implementation(self.name, {}, source=self.source)
        new._given = self._given
        layers: dict[str, Layer] = {}
        for name, layer in self.layers.items():
            if isinstance(layer, functools.partial) and name not in self._given:
                layers[name] = functools.partial(change(name, layer.func), new)
            else:
                layers[name] = change(name, layer)
        new._take(layers)
        return new

    @property
    def composes(self) -> list[str]:
        """The composed layers that it has written itself. They know of no KV cache; the project's own do."""
        return [layer for layer in COMPOSED if layer in self._written]

    @property
    def is_ours(self) -> bool:
        return self.name in OURS and not self.source

    def recomposed(self) -> "Implementation":
        """Its layers, composed by the project's own functions."""
        given = {layer: function for layer, function in self._given.items() if layer not in COMPOSED}
        return Implementation(self.name, given, compose=True, source=self.source)

    def replacing(self, name: str, **layers: Layer) -> "Implementation":
        """An implementation of another name: its layers with these in place of some, composed by the project's own."""
        return Implementation(name, self.recomposed()._given | layers, compose=True)

    @property
    def _written(self) -> dict[str, Layer]:
        return {layer: function for layer, function in self._given.items() if layer not in self.stubs}


def load(name: str | Path) -> Implementation:
    """The implementation of that name or path; see the module's docstring.

    Raises ImplementationError where there is none, it fails to import, or it defines no layer.
    """
    name = str(name)
    if name in OURS:
        plain = {layer: getattr(_module(layer), name) for layer in LAYERS if layer not in COMPOSED}
        if name == "naive":
            plain = {layer: _on_tensors(function) for layer, function in plain.items()}
        return Implementation(name, plain, compose=True)
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
    return Implementation(Path(name).stem if Path(name).exists() else name, layers, source=name)


def _module(layer: str) -> ModuleType:
    return importlib.import_module(f"llama.layers.{layer}")


def _file(layer: Layer) -> str:
    while isinstance(layer, functools.partial):
        layer = layer.func
    try:
        return inspect.getsourcefile(inspect.unwrap(layer)) or "?"
    except TypeError:  # compiled, or an object that is called
        module = sys.modules.get(getattr(layer, "__module__", None) or type(layer).__module__)
        return getattr(module, "__file__", None) or "?"


def _is_stub(layer: Layer) -> bool:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(layer))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return False  # compiled, or not a plain function
    if not isinstance(definition, ast.FunctionDef):
        return False
    documented = ast.get_docstring(definition) is not None
    body = definition.body[documented:]
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])


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


def _on_tensors(function: Layer) -> Layer:
    """A layer over NumPy arrays as one over tensors: float64 within, the first float tensor's dtype outside."""

    @functools.wraps(function)
    def layer(*args: Any, **kwargs: Any) -> Any:
        given = [t for t in _leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        floats = [t.dtype for t in given if t.is_floating_point()]
        device = given[0].device if given else torch.device("cpu")

        def to_array(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            leaf = leaf.detach().cpu()
            return (leaf.double() if leaf.is_floating_point() else leaf).numpy()

        def to_tensor(leaf: Any, dtype: torch.dtype | None) -> Any:
            if not isinstance(leaf, np.ndarray):
                return leaf
            tensor = torch.from_numpy(leaf)
            return tensor.to(device, dtype if dtype and tensor.is_floating_point() else tensor.dtype)

        def to_tensors(result: Any) -> Any:
            if isinstance(result, tuple):
                return tuple(to_tensors(part) for part in result)
            if isinstance(result, list):  # of gradients, each in its own dtype
                return [to_tensor(array, dtype) for array, dtype in zip(result, floats, strict=True)]
            return to_tensor(result, floats[0] if floats else None)

        args, kwargs = map_leaves(to_array, (args, kwargs))
        return to_tensors(function(*args, **kwargs))

    return layer


def _leaves(tree: Any) -> list[Any]:
    leaves: list[Any] = []
    map_leaves(leaves.append, tree)
    return leaves


def map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, list | tuple):
        return type(tree)(map_leaves(change, item) for item in tree)
    if isinstance(tree, dict):
        return {key: map_leaves(change, item) for key, item in tree.items()}
    return change(tree)
