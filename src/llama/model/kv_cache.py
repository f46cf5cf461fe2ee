"""The keys and values of the positions so far, so that each token is computed once.

cache = KVCache(model.config, batch=1)
logits = model(prompt, cache)                  # the prompt in one pass, or in chunks of any sizes
logits = model(next_id, cache)                 # then one token at a time
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.model.config import LlamaConfig


class Cache:
    """What a Llama is given with the tokens of a pass: what it has kept of the positions before them.

    It is made for `batch` sequences of one dtype, and has a part for each decoder layer in `layers`.
    """

    batch: int
    dtype: torch.dtype
    layers: Sequence[Any]

    def check(self, batch: int, dtype: torch.dtype | None = None) -> None:
        """Raise ValueError unless it was made for so many sequences, and of that dtype where one is given."""
        if batch != self.batch:
            raise ValueError(f"cache: it was made for {self.batch} sequences, got {batch}")
        if dtype not in (None, self.dtype):
            made, got = (str(t).removeprefix("torch.") for t in (self.dtype, dtype))
            raise ValueError(f"cache: it was made for {made}, got {got}")

    def positions(self, seq: int, device: torch.device) -> Int64[Tensor, "seq"] | Int64[Tensor, "batch seq"]:
        """The next so many positions."""
        raise NotImplementedError


def check_rewind(length: int, held: int) -> None:
    """Raise ValueError unless so many of the positions that are held can stay."""
    if not 0 <= length <= held:
        raise ValueError(f"cache: it can be rewound to 0..{held} positions, got {length}")


class KVCache(Cache):
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
        self.memory, self.batch, self.dtype = memory, memory.shape[1], memory.dtype
        self.keys, self.values = memory.chunk(2, dim=2)
        self.rows = memory[:, :1].flatten(1, 2)
        # By .data, since a view would tell autograd that what one layer writes changes what another has kept.
        self.layers = [LayerCache(k.data, v.data, length) for k, v in zip(self.keys, self.values, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        # A copy has to be of one memory, too.
        return {"memory": self.memory, "length": self.length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(**state)

    @property
    def length(self) -> int:
        """How many positions are held."""
        return self.layers[0].length

    def positions(self, seq: int, device: torch.device) -> Int64[Tensor, "seq"]:
        """The next so many positions, of every sequence."""
        return torch.arange(self.length, self.length + seq, device=device)

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError where fewer are held."""
        check_rewind(length, self.length)
        for layer in self.layers:
            layer.length = length

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

    def attend(self, layers: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k and v [batch n_kv_heads seq head_dim] behind what is held; return what q attends to in all of it."""
        start = self.length
        self.claim(k.shape[2])
        self.keys[:, :, start : self.length], self.values[:, :, start : self.length] = k, v
        heads: Tensor = layers.attention(q, self.keys[:, :, : self.length], self.values[:, :, : self.length])
        return heads
