"""Keys and values of several sequences in one memory, in pages, so that each may be of any length, come and go.

    pages = Pages(model.config)
    first, second = pages.sequence(), pages.sequence()
    logits = model(prompt, pages.cache([first], prompt.shape[1]))    # [1 seq], in one pass or in chunks
    logits = model(tokens, pages.cache([first, second], 1))          # [2 1]: the next token of each
    first.rewind(7)                                                  # forget all but the first seven positions
    second.release()                                                 # its pages are free for others

A cache is made for one pass. It holds places for that pass's tokens in every sequence: all of them count as held as
soon as it is made.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.model.config import LlamaConfig
from llama.model.kv_cache import Cache, check_rewind

PAGE_SIZE = 32
"""Positions in a page. Half a page stays empty for each sequence; the smaller they are, the more there are to find."""


class Pages:
    """Memory for keys and values [n_layers n_pages n_kv_heads page_size head_dim], which grows as it is needed."""

    def __init__(
        self,
        config: LlamaConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        page_size: int = PAGE_SIZE,
    ):
        if page_size < 1:
            raise ValueError(f"pages: page_size must be at least 1, got {page_size}")
        shape = (config.num_hidden_layers, 0, config.num_key_value_heads, page_size, config.head_dim)
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.page_size, self.context = page_size, config.max_position_embeddings
        self.free: list[int] = []

    def sequence(self) -> "PagedSequence":
        """A new one, of no positions."""
        return PagedSequence(self)

    def cache(self, sequences: Sequence["PagedSequence"], seq: int) -> "PagedCache":
        """For one pass over the next `seq` tokens of each of these sequences.

        Raises ValueError where these do not fit into the context; then nothing has changed.
        """
        for of in sequences:
            if of.length + seq > self.context:
                raise ValueError(f"cache: {of.length + seq} positions do not fit into a context of {self.context}")
        starts = [of.length for of in sequences]
        for of in sequences:
            of.claim(seq)
        return PagedCache(self, sequences, starts, seq)

    def take(self) -> int:
        """A page that is free; there are twice as many where none is."""
        if not self.free:
            held = self.keys.shape[1]
            more = max(1, held)
            self.keys, self.values = (
                torch.cat((t, t.new_empty(len(t), more, *t.shape[2:])), dim=1) for t in (self.keys, self.values)
            )
            self.free = list(reversed(range(held, held + more)))
        return self.free.pop()


class PagedSequence:
    """The pages of one sequence, in the order of its positions, and how many positions are held."""

    def __init__(self, pages: Pages):
        self.of, self.pages, self.length = pages, list[int](), 0

    def claim(self, count: int) -> None:
        """Count so many more positions as held, to be written by the caller."""
        self.length += count
        while len(self.pages) * self.of.page_size < self.length:
            self.pages.append(self.of.take())

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on, and free the pages of which none is left.

        Raises ValueError where fewer are held.
        """
        check_rewind(length, self.length)
        self.length = length
        used = math.ceil(length / self.of.page_size)
        self.of.free += reversed(self.pages[used:])
        del self.pages[used:]

    def release(self) -> None:
        """Forget everything."""
        self.rewind(0)


class PagedCache(Cache):
    """What a Llama needs to know of its sequences in one pass: the places of the new tokens and of all before them."""

    def __init__(self, pages: Pages, sequences: Sequence[PagedSequence], starts: Sequence[int], seq: int):
        device, longest = pages.keys.device, max((len(of.pages) for of in sequences), default=0)
        rows = [of.pages + [0] * (longest - len(of.pages)) for of in sequences]
        self.dtype, self.batch = pages.keys.dtype, len(sequences)
        first = torch.tensor(starts, dtype=torch.int64, device=device)
        self._positions = first[:, None] + torch.arange(seq, device=device)
        table = torch.tensor(rows, dtype=torch.int64, device=device).view(self.batch, longest)
        lengths = [of.length for of in sequences]
        new_pages = table.gather(1, self._positions // pages.page_size).flatten()
        new_slots = (self._positions % pages.page_size).flatten()
        # By .data, since a view would tell autograd that what one layer writes changes what another has kept.
        self.layers = [
            PagedLayer(keys.data, values.data, table, lengths, new_pages, new_slots)
            for keys, values in zip(pages.keys.unbind(), pages.values.unbind(), strict=True)
        ]

    def positions(self, seq: int, device: torch.device) -> Int64[Tensor, "batch seq"]:
        """Those of the new tokens. Raises ValueError where it was made for another number of them."""
        if seq != self._positions.shape[1]:
            raise ValueError(f"cache: it was made for {self._positions.shape[1]} tokens of each sequence, got {seq}")
        return self._positions.to(device)


class PagedLayer:
    """One layer's part of a PagedCache."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        table: Int64[Tensor, "batch max_pages"],
        lengths: list[int],
        new_pages: Int64[Tensor, "n"],
        new_slots: Int64[Tensor, "n"],
    ):
        self.keys, self.values, self.table, self.lengths = keys, values, table, lengths
        self.new_pages, self.new_slots = new_pages, new_slots

    def attend(self, layers: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k and v [batch n_kv_heads seq head_dim] into their places; return what q attends to, up to there."""
        for pages, new in ((self.keys, k), (self.values, v)):
            pages[self.new_pages, :, self.new_slots] = new.transpose(1, 2).flatten(0, 1)
        if q.shape[2] == 1:
            lengths = torch.tensor(self.lengths, dtype=torch.int64, device=q.device)
            heads: Tensor = layers.paged_attention(q[:, :, 0], self.keys, self.values, self.table, lengths)
            return heads[:, :, None]
        # Several new tokens ask as in a dense cache.
        page_size = self.keys.shape[2]
        of_sequences = []
        for b, length in enumerate(self.lengths):
            pages = self.table[b, : math.ceil(length / page_size)]
            k, v = (t[pages].transpose(0, 1).flatten(1, 2)[None, :, :length] for t in (self.keys, self.values))
            of_sequences.append(layers.attention(q[b : b + 1], k, v))
        return torch.cat(of_sequences)
