"""Keys and values of several sequences in one memory, in pages, so that each may be of any length, come and go.

    pages = Pages(model.config)
    first, second = pages.sequence(), pages.sequence()
    logits = model(prompt, pages.cache([first], prompt.shape[1]))    # [1 seq], in one pass or in chunks
    logits = model(tokens, pages.cache([first, second], 1))          # [2 1]: the next token of each
    first.rewind(7)                                                  # forget all but the first seven positions
    second.release()                                                 # its pages are free for others

A cache is made for one pass, and used before the next one is made. It holds places for that pass's tokens in every
sequence: all of them count as held as soon as it is made.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from llama.model.config import LlamaConfig
from llama.model.kv_cache import Cache, check_rewind

PAGE_SIZE = 32
"""Positions in a page. Half a page stays empty for each sequence; the smaller they are, the more there are to find."""


SMALL, LARGE = 4 * 2**20, 16 * 2**20
"""Bytes of keys. Up to the first it pays to read all sequences as if they were as long as the longest; up to the second
where they nearly are. A copy beyond it is new memory in every call, which takes longer to have than to fill."""


class Pages:
    """Memory for keys and values [n_layers n_pages n_kv_heads page_size head_dim], which grows as it is needed.

    What no sequence holds is zeros: a slot that is read and hidden is finite, whatever was there before.
    """

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
        with torch.inference_mode(False):  # in which what is made could not be written to outside of it
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
            with torch.inference_mode(False):
                self.keys, self.values = (
                    torch.cat((t, t.new_zeros(len(t), more, *t.shape[2:])), dim=1) for t in (self.keys, self.values)
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
        page_size = self.of.page_size
        used, slot = math.ceil(length / page_size), length % page_size
        for t in (self.of.keys, self.of.values):
            t[:, self.pages[used:]] = 0
            if slot and length < self.length:
                t[:, self.pages[used - 1], :, slot:] = 0
        self.length = length
        self.of.free += reversed(self.pages[used:])
        del self.pages[used:]

    def release(self) -> None:
        """Forget everything."""
        self.rewind(0)


class PagedCache(Cache):
    """What a Llama needs to know of its sequences in one pass: the places of the new tokens and of all before them."""

    def __init__(self, pages: Pages, sequences: Sequence[PagedSequence], starts: Sequence[int], seq: int):
        self.dtype, self.batch = pages.keys.dtype, len(sequences)
        places = Places(pages, sequences, starts, seq)
        self._positions = places.new
        # By .data, since a view would tell autograd that what one layer writes changes what another has kept.
        self.layers = [
            PagedLayer(keys.data, values.data, places)
            for keys, values in zip(pages.keys.unbind(), pages.values.unbind(), strict=True)
        ]

    def positions(self, seq: int, device: torch.device) -> Int64[Tensor, "batch seq"]:
        """Those of the new tokens. Raises ValueError where it was made for another number of them."""
        if seq != self._positions.shape[1]:
            raise ValueError(f"cache: it was made for {self._positions.shape[1]} tokens of each sequence, got {seq}")
        return self._positions.to(device)


class Places:
    """Where the positions of a pass lie, which is the same in every layer.

    new [batch seq] are the positions that are written, in page `pages[i]` and slot `slots[i]`, one after the other.
    table [batch max_pages] and `lengths` say what is read. Behind its pages, a sequence has its first one again: what
    is read there and hidden is no other sequence's, which may be NaN.
    """

    def __init__(self, pages: Pages, sequences: Sequence[PagedSequence], starts: Sequence[int], seq: int):
        device, longest = pages.keys.device, max((len(of.pages) for of in sequences), default=0)
        rows = [of.pages + (of.pages[:1] or [0]) * (longest - len(of.pages)) for of in sequences]
        self.n_kv_heads, self.page_size = pages.keys.shape[2:4]
        self.new = torch.tensor(starts, dtype=torch.int64, device=device)[:, None] + torch.arange(seq, device=device)
        self.table = torch.tensor(rows, dtype=torch.int64, device=device).view(len(sequences), longest)
        self.lengths = [of.length for of in sequences]
        self.pages = self.table.gather(1, self.new // self.page_size).flatten()
        self.slots = (self.new % self.page_size).flatten()
        self.dtype = pages.keys.dtype
        self.bytes = self.n_kv_heads * pages.keys.shape[4] * self.dtype.itemsize

    @functools.cached_property
    def alike(self) -> bool:
        """Whether it pays to read all sequences as if they were as long as the longest."""
        positions = self.table.numel() * self.page_size
        size = positions * self.bytes
        return size <= SMALL or (size <= LARGE and positions <= 1.25 * sum(self.lengths))

    @functools.cached_property
    def rows(self) -> Int64[Tensor, "n"]:
        """The heads of all pages of the table, [batch n_kv_heads max_pages], each a row of the pages' memory."""
        heads = torch.arange(self.n_kv_heads, device=self.table.device)[:, None]
        return torch.add(heads, self.table[:, None], alpha=self.n_kv_heads).flatten()

    @functools.cached_property
    def bias(self) -> Float[Tensor, "batch 1 1 positions"]:
        """What is added to a score: 0, or -inf beyond the length of a sequence."""
        lengths = torch.tensor(self.lengths, device=self.table.device)[:, None, None, None]
        hidden = torch.arange(self.table.shape[1] * self.page_size, device=self.table.device) >= lengths
        return torch.zeros(hidden.shape, dtype=self.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)


class PagedLayer:
    """One layer's part of a PagedCache."""

    def __init__(self, keys: Tensor, values: Tensor, places: Places):
        self.keys, self.values, self.places = keys, values, places

    def attend(self, layers: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k and v [batch n_kv_heads seq head_dim] into their places; return what q attends to, up to there."""
        self._write(k, v)
        at = self.places
        if q.shape[2] == 1:
            lengths = torch.tensor(at.lengths, dtype=torch.int64, device=q.device)
            heads: Tensor = layers.paged_attention(q[:, :, 0], self.keys, self.values, at.table, lengths)
            return heads[:, :, None]
        # Several new tokens ask as in a dense cache.
        of_sequences = []
        for b, length in enumerate(at.lengths):
            pages = at.table[b, : math.ceil(length / at.page_size)]
            k, v = (t[pages].transpose(0, 1).flatten(1, 2)[None, :, :length] for t in (self.keys, self.values))
            of_sequences.append(layers.attention(q[b : b + 1], k, v))
        return torch.cat(of_sequences)

    def attend_at_once(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same for one new token of each sequence, all read as if they were as long as the longest."""
        self._write(k, v)
        at = self.places
        batch, n_heads, _, head_dim = q.shape
        keys, values = (
            t.flatten(0, 1).flatten(1).index_select(0, at.rows).view(batch, at.n_kv_heads, -1, head_dim)
            for t in (self.keys, self.values)
        )
        # The query heads that share a key head are queries of one head, which then reads its keys once.
        queries = q.reshape(batch, at.n_kv_heads, -1, head_dim)
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=at.bias)
        return y.view(batch, n_heads, 1, head_dim)

    def _write(self, k: Tensor, v: Tensor) -> None:
        for pages, new in ((self.keys, k), (self.values, v)):
            pages[self.places.pages, :, self.places.slots] = new.transpose(1, 2).flatten(0, 1)
