"""What Llama and the smaller models of the ladder share: named weights, computed with by an implementation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llama.implementation import Implementation
from llama.model.config import LlamaConfig


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards the model is what it was, in training or not."""
    if not model.training:
        yield  # to tell each part of it, for each token that is generated, would take as long as the token
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


class LanguageModel(nn.Module):
    """Named weights, and an implementation to compute with them: what Llama and the rungs of the ladder share.

    `shapes` are those of the weights. `compute_dtype` is what the layers compute in, where it is not the dtype of
    the weights: with bfloat16 the weights stay float32 for the optimizer, and everything between them and the
    logits is bfloat16. `dropout` is applied, in training, to the embeddings and to what each block adds.
    """

    def __init__(self, config: LlamaConfig, layers: Implementation, shapes: Mapping[str, tuple[int, ...]]):
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.dropout: Callable[[Tensor], Tensor] | None = None
        self.layers = layers
        # Ours need no contract within a model, whose sizes fit; another's are spared no sentence.
        self._within = layers.unchecked() if layers.is_ours else layers
        self._places = [(name, *self._place(name, shape)) for name, shape in shapes.items()]
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Norms to one, matrices normal with standard deviation initializer_range."""
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.initializer_range, generator=generator)

    def held(self) -> dict[str, Tensor]:
        """The weights by name, as they are held."""
        return {name: parameters[last] for name, parameters, last in self._places}

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, in what the layers compute in."""
        held = self.held()
        if self.compute_dtype is not None:
            held |= {name: w.to(self.compute_dtype) for name, w in held.items() if not w.is_meta}
        return held

    def _place(self, name: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], str]:
        """Register a parameter under a dotted name, which is what makes the keys Hugging Face's; return where it is."""
        module: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(torch.empty(shape)))
        return module._parameters, last
