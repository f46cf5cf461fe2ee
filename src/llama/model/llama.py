"""Llama as a torch module, wired from any implementation, and the cache that makes generation cheap.

    model = Llama(LlamaConfig(vocab_size=65), "fused")
    logits = model(token_ids)                      # [batch seq] -> [batch seq vocab]

    cache = KVCache(model.config, batch=1)
    logits = model(prompt, cache)                  # the prompt in one pass, or in chunks of any sizes
    logits = model(next_id, cache)                 # then one token at a time

    model = Llama.from_pretrained("Llama-3.2-1B")  # a Hugging Face folder, in the dtype of its file
    model.save_pretrained("out/mine")              # one that transformers loads

The keys of `state_dict` are those of a Hugging Face checkpoint.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.contract import check_ids
from llama.contract.weights import EMBEDDING
from llama.implementation import Implementation, load
from llama.machine.safe_files import read_json, write_atomically
from llama.model import weights
from llama.model.config import LlamaConfig
from llama.model.kv_cache import Cache
from llama.model.language_model import LanguageModel


class Llama(LanguageModel):
    """The whole model; `implementation` says whose layers compute it."""

    def __init__(self, config: LlamaConfig, implementation: Implementation | str = "fused"):
        layers = load(implementation) if isinstance(implementation, str) else implementation
        super().__init__(config, layers.completed(), weights.shapes(config))
        self._in_training = self._within.llama

    @classmethod
    def from_pretrained(cls, path: str | Path, implementation: Implementation | str = "fused") -> "Llama":
        """The model of a Hugging Face folder: config.json with model.safetensors, whole or in shards.

        The parameters keep the dtype of the file. Raises ValueError, in one sentence, for what this model does not
        have, and for files that are missing, damaged or do not fit together.
        """
        config = read_config(path)
        return cls.from_weights(config, weights.read(path, config), implementation)

    @classmethod
    def from_weights(
        cls, config: LlamaConfig, tensors: Mapping[str, Tensor], implementation: Implementation | str = "fused"
    ) -> "Llama":
        """A model of these very tensors, not copies; they are those of `weights.shapes(config)`."""
        layers = load(implementation) if isinstance(implementation, str) else implementation
        with torch.device("meta"):  # takes no memory, and draws nothing that would be thrown away
            model = cls(config, layers)
        model.load_state_dict(tensors, assign=True)
        return model

    def gradients(
        self, token_ids: Int64[Tensor, "batch seq"], targets: Int64[Tensor, "batch seq"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The mean cross-entropy of a batch, and its gradient for each parameter by name, without autograd.

        Raises IndexError for an id outside the vocabulary.
        """
        tensors = {name: tensor.detach() for name, tensor in self.tensors().items()}
        loss, gradients = self._within.llama_backward(token_ids, targets, tensors, self.config)
        return loss, gradients

    def compile_training(self, **options: Any) -> None:
        """From now on torch.compile, with these options, makes one program of all layers in training.

        It is without contracts, and without `layers.embedding`, whose gradient a program's threads would add up in
        another order in every run. Evaluation and generation, whose shapes are many, stay as they are. Each shape has a
        program of its own, up to torch's limit (`recompile_limit`), from which on it warns and computes without.
        """

        def outside(name: str, layer: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compiler.disable(layer) if name == "embedding" else layer

        layers = self.layers.unchecked().changed(outside)
        self._in_training = torch.compile(layers.llama, **{"dynamic": False} | options)

    def save_pretrained(self, path: str | Path) -> None:
        """Write config.json and model.safetensors, which transformers loads, in the dtype of the parameters.

        Raises OSError, in one sentence, where they cannot be written, and ValueError for weights that could not be
        read again; earlier ones are then still whole.
        """
        write_atomically(path, weights.writers(self.config, self.state_dict()))

    def forward(
        self, token_ids: Int64[Tensor, "batch seq"], cache: Cache | None = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits for every position; with a cache, token_ids are the positions after those it holds.

        Raises IndexError for an id outside the vocabulary, and ValueError for a cache or dropout where the
        implementation composes layers itself, which know of neither.
        """
        tensors = self.tensors()
        weight = tensors[EMBEDDING]
        check_pass(token_ids, len(weight), cache, weight.dtype)
        more: dict[str, Any] = {}
        if cache is not None:
            more["cache"] = cache
        if self.dropout is not None and self.training:
            more["dropout"] = self.dropout
        if more and self.layers.composes:
            raise ValueError(
                f"{next(iter(more))}: {', '.join(self.layers.composes)} of {self.layers.name} has no use for it"
            )
        compute = self._in_training if self.training and cache is None else self._within.llama
        return compute(token_ids, tensors, self.config, **more)


def read_config(folder: str | Path) -> LlamaConfig:
    """The config of a Hugging Face folder, with the ends of a text from generation_config.json where that has some.

    Raises ValueError as `LlamaConfig.from_hugging_face` does.
    """
    path, generation = Path(folder) / "config.json", Path(folder) / "generation_config.json"
    fields = read_json(path)
    if generation.is_file() and (ends := read_json(generation).get("eos_token_id")) is not None:
        fields["eos_token_id"] = ends
    try:
        return LlamaConfig.from_hugging_face(fields)
    except ValueError as error:
        raise ValueError(f"checkpoint: {path}: {str(error).removeprefix('config: ')}") from error


def check_pass(token_ids: Tensor, vocab: int, cache: Cache | None, dtype: torch.dtype | None = None) -> None:
    """Raise ValueError or IndexError for ids that are none of this vocabulary, and for a cache of other sequences, or
    of another dtype where one is given."""
    if token_ids.ndim != 2 or token_ids.dtype != torch.int64:
        got = f"{list(token_ids.shape)} {str(token_ids.dtype).removeprefix('torch.')}"
        raise ValueError(f"llama: token_ids must be [batch seq] int64, got {got}")
    check_ids("embedding: token_ids", token_ids, vocab)
    if cache is not None:
        cache.check(len(token_ids), dtype)
