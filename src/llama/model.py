"""Llama as a torch module, wired from any implementation, and the cache that makes generation cheap.

    model = Llama(LlamaConfig(vocab_size=65), "fused")
    logits = model(token_ids)                      # [batch seq] -> [batch seq vocab]

    cache = KVCache(model.config, batch=1)
    logits = model(prompt, cache)                  # the prompt in one pass, or in chunks of any sizes
    logits = model(next_id, cache)                 # then one token at a time

The keys of `state_dict` are those of a Hugging Face checkpoint.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama.config import LlamaConfig
from llama.implementation import Implementation, load
from llama.layers.llama import names


class Llama(nn.Module):
    """The whole model; `implementation` says whose layers compute it."""

    def __init__(self, config: LlamaConfig, implementation: Implementation | str = "fused"):
        super().__init__()
        self.config = config
        self.layers = (load(implementation) if isinstance(implementation, str) else implementation).completed()
        for name, shape in shapes(config).items():
            self._place(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Norms to one, matrices normal with standard deviation initializer_range."""
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.initializer_range, generator=generator)

    def forward(
        self, token_ids: Int64[Tensor, "batch seq"], cache: "KVCache | None" = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits for every position; with a cache, token_ids are the positions after those it holds.

        Raises ValueError for a cache where the implementation composes layers itself, which know of none.
        """
        weights = dict(self.named_parameters())
        if cache is None:
            return self.layers.llama(token_ids, weights, self.config)
        if self.layers.composes:
            raise ValueError(f"cache: {', '.join(self.layers.composes)} of {self.layers.name} cannot use one")
        return self.layers.llama(token_ids, weights, self.config, cache=cache)

    def _place(self, name: str, parameter: nn.Parameter) -> None:
        """Register a parameter under a dotted name, which is what makes the keys Hugging Face's."""
        module: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, parameter)


class KVCache:
    """The keys and values of all positions so far, layer by layer, in memory that is laid out once.

    Raises ValueError where more than max_position_embeddings positions are appended.
    """

    def __init__(
        self,
        config: LlamaConfig,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = (batch, config.num_key_value_heads, config.max_position_embeddings, config.head_dim)
        self.layers = [LayerCache(shape, dtype, device) for _ in range(config.num_hidden_layers)]

    @property
    def length(self) -> int:
        """How many positions are held."""
        return self.layers[0].length


class LayerCache:
    """One layer's part of a KVCache."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str):
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v [batch n_kv_heads seq head_dim] behind what is held; return views of all of it."""
        start, end = self.length, self.length + k.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError(f"cache: {end} positions do not fit into a context of {self.keys.shape[2]}")
        self.keys[:, :, start:end], self.values[:, :, start:end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the state dict."""
    d_model, d_ff = config.hidden_size, config.intermediate_size
    q_rows, kv_rows = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    by_ending = {
        "embed_tokens.weight": (config.vocab_size, d_model),
        "q_proj.weight": (q_rows, d_model),
        "k_proj.weight": (kv_rows, d_model),
        "v_proj.weight": (kv_rows, d_model),
        "o_proj.weight": (d_model, q_rows),
        "gate_proj.weight": (d_ff, d_model),
        "up_proj.weight": (d_ff, d_model),
        "down_proj.weight": (d_model, d_ff),
        "lm_head.weight": (config.vocab_size, d_model),
    }
    wanted = names(config.num_hidden_layers)
    if config.tie_word_embeddings:
        wanted.remove("lm_head.weight")
    return {name: by_ending.get(".".join(name.split(".")[-2:]), (d_model,)) for name in wanted}
