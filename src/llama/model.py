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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama import weights
from llama.config import LlamaConfig
from llama.files import read_json, write_atomically
from llama.implementation import Implementation, load
from llama.layers import embedding


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

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, in what the layers compute in."""
        tensors: dict[str, Tensor] = {name: parameters[last] for name, parameters, last in self._places}
        if self.compute_dtype is not None:
            tensors = {name: tensor.to(self.compute_dtype) for name, tensor in tensors.items()}
        return tensors

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
        self, token_ids: Int64[Tensor, "batch seq"], cache: "KVCache | None" = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits for every position; with a cache, token_ids are the positions after those it holds.

        Raises IndexError for an id outside the vocabulary, and ValueError for a cache or dropout where the
        implementation composes layers itself, which know of neither.
        """
        tensors = self.tensors()
        _check(token_ids, tensors["model.embed_tokens.weight"], cache)
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


def _check(token_ids: Tensor, weight: Tensor, cache: "KVCache | None") -> None:
    if token_ids.ndim != 2 or token_ids.dtype != torch.int64:
        got = f"{list(token_ids.shape)} {str(token_ids.dtype).removeprefix('torch.')}"
        raise ValueError(f"llama: token_ids must be [batch seq] int64, got {got}")
    embedding.check(token_ids, weight)
    if cache is not None:
        cache.check(len(token_ids), weight.dtype)


class KVCache:
    """The keys and values of all positions so far, layer by layer, in memory that is laid out once.

    There is room for max_position_embeddings positions, or for fewer where `positions` says so. Raises ValueError
    where more are appended.

    keys and values are [n_layers batch n_kv_heads positions head_dim]; rows [n_layers 2·n_kv_heads positions head_dim]
    are the keys and then the values of the first sequence, in the same memory.
    """

    def __init__(
        self,
        config: LlamaConfig,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        positions: int | None = None,
    ):
        n_layers, n_kv_heads = config.num_hidden_layers, config.num_key_value_heads
        shape = (n_layers, batch, 2 * n_kv_heads, positions or config.max_position_embeddings, config.head_dim)
        self._hold(torch.empty(shape, dtype=dtype, device=device), length=0)

    def _hold(self, memory: Tensor, length: int) -> None:
        self.memory = memory
        self.keys, self.values = memory.chunk(2, dim=2)
        self.rows = memory[:, :1].flatten(1, 2)
        # By .data, since a view would tell autograd that what one layer writes changes what another has kept.
        self.layers = [LayerCache(k.data, v.data, length) for k, v in zip(self.keys, self.values, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        # A copy has to be of one memory, too.
        return {"memory": self.memory, "length": self.length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(**state)

    def check(self, batch: int, dtype: torch.dtype | None = None) -> None:
        """Raise ValueError unless it was made for so many sequences, and of that dtype where one is given."""
        made_for = self.keys.shape[1]
        if made_for != batch:
            raise ValueError(f"cache: it was made for {made_for} sequences, got {batch}")
        if dtype not in (None, self.keys.dtype):
            made, got = (str(t).removeprefix("torch.") for t in (self.keys.dtype, dtype))
            raise ValueError(f"cache: it was made for {made}, got {got}")

    @property
    def length(self) -> int:
        """How many positions are held."""
        return self.layers[0].length

    def claim(self, count: int) -> int:
        """Make room for so many positions in every layer, to be written by the caller; return the first of them."""
        start = self.length
        for layer in self.layers:
            layer.claim(count)
        return start


class LayerCache:
    """One layer's part of a KVCache: keys and values [batch n_kv_heads positions head_dim], `length` of them held."""

    def __init__(self, keys: Tensor, values: Tensor, length: int):
        self.keys, self.values, self.length = keys, values, length

    def claim(self, count: int) -> None:
        """Count so many positions as held. Raises ValueError where they do not fit."""
        end, context = self.length + count, self.keys.shape[2]
        if end > context:
            raise ValueError(f"cache: {end} positions do not fit into a context of {context}")
        self.length = end

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v [batch n_kv_heads seq head_dim] behind what is held; return views of all of it."""
        start = self.length
        self.claim(k.shape[2])
        self.keys[:, :, start : self.length], self.values[:, :, start : self.length] = k, v
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]
