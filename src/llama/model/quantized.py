"""A Llama whose matrices are held in codes of 8 or 4 bits: a quarter or an eighth of the memory, at a small loss.

    model = quantized(Llama.from_pretrained(path), bits=8)

It is made of a model whenever that is loaded, and never written: a checkpoint keeps the weights themselves. The
layers are those of the model's implementation: `quantize` makes the codes, `quantized_linear` multiplies with them.
What is not a matrix product stays as it is: the norms, and the embedding, of which a row is read and nothing is
multiplied.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from llama.contract import unchecked
from llama.contract.weights import EMBEDDING, HEAD
from llama.implementation import Implementation
from llama.model.llama import Llama

GROUP = 64
"""Inputs that share a scale, at most: with 8 bits they cost half a bit for each weight."""
WORD = 32
"""Bits of a word: the program that multiplies with codes (programs.py) takes as many of them at a time as fill one."""


class Quantized(NamedTuple):
    """A matrix as `quantize` returns it."""

    codes: Int8[Tensor, "d_out d_in"]
    scales: Float[Tensor, "d_out n_groups"]
    bits: int

    def stand_in(self) -> Float[Tensor, "d_out d_in"]:
        """A tensor of the weight's shape and without its values, for whoever looks at shapes; see `codes_of`."""
        shape = torch.empty(self.codes.shape, dtype=self.scales.dtype, device="meta")
        shape.quantized = self  # type: ignore[attr-defined]
        return shape

    def dequantized(self) -> Float[Tensor, "d_out d_in"]:
        """The weights themselves, codes · scales."""
        runs = self.codes.to(self.scales.dtype).unflatten(1, (self.scales.shape[1], -1))
        return (runs * self.scales[..., None]).flatten(1)


def codes_of(weight: Tensor) -> Quantized | None:
    """The codes that this weight stands in for; None of one that has its values."""
    found: Quantized | None = getattr(weight, "quantized", None)
    return found


def quantized(model: Llama, bits: int) -> Llama:
    """A model of the same weights, in so many bits; the embedding and the norms are shared with the first one.

    Raises ValueError for bits that quantize does not know, and where the implementation composes layers itself.
    """
    return _QuantizedLlama(model, bits)


def group_of(d_in: int, bits: int) -> int:
    """How many inputs share a scale: the largest divisor of d_in up to GROUP, one that fills words where there is
    any."""
    divisors = [group for group in range(1, min(GROUP, d_in) + 1) if d_in % group == 0]
    return max([group for group in divisors if group % (WORD // bits) == 0] or divisors)


class _QuantizedLlama(Llama):
    @torch.no_grad()
    def __init__(self, model: Llama, bits: int):
        layers = model.layers
        if layers.composes:
            raise ValueError(
                f"quantize: {', '.join(layers.composes)} of {layers.name} composes layers itself and knows no codes"
            )
        if bits not in (8, 4):
            raise ValueError(f"quantize: bits must be 8 or 4, got {bits}")
        with torch.device("meta"):  # takes no memory
            super().__init__(model.config, layers)
        self.bits, self.compute_dtype = bits, model.compute_dtype
        self._within = _over_codes(layers)
        self._in_training = self._within.llama
        matrices, self._codes = dict[str, Tensor](), dict[str, tuple[dict[str, Any], str]]()
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1 or name == EMBEDDING:
                self._parameter(name, tensor)
            if tensor.ndim == 2 and (name != EMBEDDING or model.config.tie_word_embeddings):
                matrices[HEAD if name == EMBEDDING else name] = tensor
        for name, tensor in matrices.items():
            self._hold(name, *layers.quantize(tensor, bits, group_of(tensor.shape[1], bits)))
        self.train(model.training)

    def _parameter(self, name: str, tensor: Tensor) -> None:
        module, _, last = name.rpartition(".")
        self.get_submodule(module)._parameters[last] = torch.nn.Parameter(tensor, requires_grad=False)

    def _hold(self, name: str, codes: Tensor, scales: Tensor) -> None:
        """Codes and scales in place of the parameter."""
        path, _, last = name.rpartition(".")
        if path == HEAD.rpartition(".")[0] and path not in self._modules:
            self.add_module(path, torch.nn.Module())
        module = self.get_submodule(path)
        module._parameters.pop(last, None)
        self._places = [place for place in self._places if place[0] != name]
        for kind, tensor in (("codes", codes), ("scales", scales)):
            module.register_buffer(f"{last}_{kind}", tensor, persistent=False)
        self._codes[name] = module._buffers, last

    def held(self) -> dict[str, Tensor]:
        """The weights by name, with a stand-in for each that is quantised."""
        codes = {
            name: Quantized(buffers[f"{last}_codes"], buffers[f"{last}_scales"], self.bits).stand_in()
            for name, (buffers, last) in self._codes.items()
        }
        return super().held() | codes

    def save_pretrained(self, path: str | Path) -> NoReturn:
        why = f"a model of {self.bits} bits is made from a checkpoint when that is loaded"
        raise ValueError(f"checkpoint: {path} is not written: {why}")


def _over_codes(layers: Implementation) -> Implementation:
    """The same layers, where a weight may stand in for codes."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        of = codes_of(weight)
        y: Tensor = layers.quantized_linear(x, of.codes, of.scales) if of else layers.linear(x, weight)
        return y

    def swiglu(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
        return linear(layers.silu(linear(x, w_gate)) * linear(x, w_up), w_down)

    def change(name: str, layer: Callable[..., Any]) -> Callable[..., Any]:
        return linear if name == "linear" else swiglu if name == "swiglu" else unchecked(layer)

    return layers.changed(change)
