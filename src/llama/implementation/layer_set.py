"""A named set of layer functions, ours or anybody's, and how it is loaded."""

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from llama import adapt
from llama.contract import unchecked
from llama.implementation.arrays import Layer, on_tensors
from llama.implementation.claims import Claims
from llama.implementation.lookup import ImplementationError, Unloaded, layers_of
from llama.layers import LAYERS, gradients_of, layer_module, result_dtypes_of, takes_tensors

OURS = ("naive", "vectorized", "fused")


class Implementation:
    """Layer functions as attributes, with `name` and, layer by layer, the `files` they stand in.

    Composed layers that are not given are the project's own, over these layers, as soon as `compose` is
    true; with `compose` false they are not there. `source` is what it can be loaded from again.
    """

    is_apart = False
    """Whether its layers run in processes of their own."""

    def __init__(self, name: str, layers: Mapping[str, Layer], compose: bool = False, source: str = ""):
        self.name = name
        self.source = source
        self.named_in: dict[str, str] = {}
        """The file in which a layer has its name, where its code may lie in another."""
        self.claims: dict[str, Claims] = {}
        """What is claimed of a layer, where it is not everything."""
        self.left_out: list[str] = []
        """What is left out, each in a sentence: files that fail to import, and what is nearly a layer."""
        self._given = dict(layers)
        if compose:
            layers = {layer: functools.partial(layer_module(layer).compose, self) for layer in composed()} | self._given
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

    @functools.cached_property
    def unloaded(self) -> dict[str, str]:
        """The layers whose file could not be loaded, each with the reason in a sentence."""
        return {layer: f.sentence for layer, f in self._given.items() if isinstance(f, Unloaded)}

    def claim(self, text: str, *layers: str) -> None:
        """Claim no more than that text says (see claims.py) of these layers, or of all.

        Raises ImplementationError for a word that there is not.
        """
        try:
            claims = Claims.parse(text)
        except ValueError as error:
            raise ImplementationError(f"{self.source or self.name}: {error}") from error
        self.claims |= dict.fromkeys(layers or self.layers, claims)

    def defines(self, layer: str) -> bool:
        """Whether it has that layer of its own, and does not leave it to us to compose."""
        return layer in self._given

    @property
    def files(self) -> dict[str, str]:
        """The file of each layer."""
        found = {name: _file(layer) for name, layer in self.layers.items()}
        return {name: self.named_in.get(name, file) if file == adapt.__file__ else file for name, file in found.items()}

    def completed(self, other: str = "vectorized") -> "Implementation":
        """All layers: these, and those of `other` where there are none, or stubs.

        Raises ImplementationError where a layer could not be loaded: another's in its place would hide that.
        """
        if self.unloaded:
            raise ImplementationError(f"{self.name}: {'; '.join(self.unloaded.values())}")
        whole = Implementation(self.name, load(other)._given | self._written, compose=True, source=self.source)
        whole.claims = self.claims
        return whole

    def reloaded(self, layer: str) -> Layer:
        """The same function from its file once more, which has kept nothing from earlier calls."""
        again: Layer = getattr(load(self.source), layer)
        return again

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

    def keeping(self, layer: str) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """That layer as one that also returns what its gradient would compute again: an argument `kept` for it.

        Nothing is kept where the layer or its gradient is another's.
        """
        module = layer_module(f"{layer}_backward")
        if layer not in self._given and self._is_ours(f"{layer}_backward", "compose"):
            return functools.partial(module.forward, self)
        if self._is_ours(layer, "fused") and self._is_ours(f"{layer}_backward", "fused"):
            return module.forward
        return lambda *args: (self.layers[layer](*args), {})

    def _is_ours(self, layer: str, name: str) -> bool:
        """Whether that layer is the function of that name in our own file of it."""
        function, ours = self.layers.get(layer), getattr(layer_module(layer), name, None)
        if isinstance(function, functools.partial):
            function = function.func
        return function is not None and ours is not None and unchecked(function) is unchecked(ours)

    @property
    def composes(self) -> list[str]:
        """The composed layers that it has written itself. They know of no KV cache; the project's own do."""
        return [layer for layer in composed() if layer in self._written and not gradients_of(layer)]

    def lacking(self, gradients: bool = False) -> list[str]:
        """The layers that `completed` takes from another: those that a model needs, and the gradients if asked for."""
        needed = [layer for layer in LAYERS if gradients or not gradients_of(layer)]
        return [layer for layer in needed if layer not in self.layers or layer in self.stubs]

    @property
    def adamw_in_place(self) -> Layer | None:
        """Our fused AdamW over many weights, writing into them; None where adamw is another."""
        ours = layer_module("adamw")
        return ours.move if self.layers.get("adamw") is ours.fused else None

    def rotation_frequencies(self, config: Any, device: torch.device) -> torch.Tensor:
        """The frequencies [head_dim/2] that rope turns by in a model of this config, as `llama` computes them."""
        found: torch.Tensor = layer_module("llama").frequencies(self, config, device)
        return found

    @property
    def is_ours(self) -> bool:
        return self.name in OURS and not self.source

    def recomposed(self) -> "Implementation":
        """Its layers, composed by the project's own functions."""
        given = {layer: function for layer, function in self._given.items() if layer not in composed()}
        new = Implementation(self.name, given, compose=True, source=self.source)
        new.claims = self.claims
        return new

    def replacing(self, name: str, **layers: Layer) -> "Implementation":
        """An implementation of another name: its layers with these in place of some, composed by the project's own."""
        return Implementation(name, self.recomposed()._given | layers, compose=True)

    @property
    def _written(self) -> dict[str, Layer]:
        return {layer: function for layer, function in self._given.items() if layer not in self.stubs}


@functools.cache
def composed() -> tuple[str, ...]:
    """The layers that are written once, over any implementation."""
    return tuple(layer for layer in LAYERS if hasattr(layer_module(layer), "compose"))


def load(name: str | Path, only: str = "") -> Implementation:
    """The implementation of that name or path; see the module's docstring. Of a folder, `only` one layer if asked for.

    A layer whose file fails to import raises the reason when it is called; see `Implementation.unloaded`. Raises
    ImplementationError where there is no layer at all.
    """
    name = str(name)
    if name in OURS:
        plain = {layer: getattr(layer_module(layer), name) for layer in LAYERS if layer not in composed()}
        if name == "naive":
            plain = {
                layer: on_tensors(function, gradients_of(layer), result_dtypes_of(layer))
                if takes_tensors(layer)
                else function
                for layer, function in plain.items()
            }
        return Implementation(name, plain, compose=True)
    found = layers_of(name, only)
    loaded = Implementation(Path(name).stem if Path(name).exists() else name, found.layers, source=name)
    loaded.left_out, loaded.named_in = found.left_out, found.files
    for layer, text in found.claims.items():
        loaded.claim(text, layer)
    return loaded


def _file(layer: Layer) -> str:
    while isinstance(layer, functools.partial):
        layer = layer.func
    if isinstance(layer, Unloaded):
        return layer.file
    try:
        return inspect.getsourcefile(inspect.unwrap(layer)) or "?"
    except TypeError:  # compiled, or an object that is called
        module = sys.modules.get(getattr(layer, "__module__", None) or type(layer).__module__)
        return getattr(module, "__file__", None) or "?"


def _is_stub(layer: Layer) -> bool:
    if "NotImplementedError" not in getattr(getattr(layer, "__code__", None), "co_names", ()):
        return False  # seen at once; the source is read only of what may be one
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(layer))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return False  # compiled, or not a plain function
    if not isinstance(definition, ast.FunctionDef):
        return False
    documented = ast.get_docstring(definition) is not None
    body = definition.body[documented:]
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])
