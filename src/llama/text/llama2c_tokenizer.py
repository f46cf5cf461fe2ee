"""The tokenizer that a model of llama2.c comes with: scores instead of an order of merges."""

import math
import re
import struct
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from llama.text.token_ids import checked


class Llama2cTokenizer:
    """The tokenizer of a llama2.c file: byte pairs, merged in the order of their scores.

    `pieces` are the bytes of each token and `scores` say how early it is merged. Tokens 0, 1 and 2 are unknown,
    begin and end; a token `<0xNN>` is that byte. A text begins with token 1 and a space, which decoding takes away.
    """

    BOS, EOS, CONTROL = 1, 2, 3

    def __init__(self, pieces: list[bytes], scores: list[float]):
        self.pieces = [_byte(piece) or piece for piece in pieces]
        self.scores = scores
        bytes_and_controls = {i for i, piece in enumerate(pieces) if i < self.CONTROL or _byte(piece)}
        self._bytes = {self.pieces[i]: i for i in bytes_and_controls if i >= self.CONTROL}
        self._ids = {piece: i for i, piece in enumerate(pieces) if i not in bytes_and_controls}

    @classmethod
    def load(cls, path: str | Path) -> "Llama2cTokenizer":
        """Read int32 longest, then for each token float32 score, int32 length and its bytes, little endian.

        Raises ValueError where the lengths do not fit the file or a score is not a number.
        """
        content = Path(path).read_bytes()
        pieces: list[bytes] = []
        scores: list[float] = []
        if len(content) < 4:
            raise ValueError(f"tokenizer: {path} has {len(content)} bytes, too few for a tokenizer of llama2.c")
        (longest,), at = struct.unpack_from("<i", content), 4
        while at < len(content):
            if len(content) - at < 8:
                raise ValueError(f"tokenizer: {path} ends within token {len(pieces)}")
            score, length = struct.unpack_from("<fi", content, at)
            at += 8
            if not 0 <= length <= min(longest, len(content) - at):
                room = f"the longest of {longest} and the {len(content) - at} bytes that are left"
                raise ValueError(f"tokenizer: {path}: token {len(pieces)} has {length} bytes, beyond {room}")
            if math.isnan(score):
                raise ValueError(f"tokenizer: {path}: token {len(pieces)} has the score nan")
            pieces.append(content[at : at + length])
            scores.append(score)
            at += length
        if len(pieces) <= cls.EOS:
            raise ValueError(f"tokenizer: {path} has {len(pieces)} tokens, too few for one that begins a text")
        return cls(pieces, scores)

    @property
    def vocab(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> Int64[Tensor, "seq"]:
        """Token 1 and, where the text is not empty, a space and the text.

        Raises ValueError for a character that is no token where the bytes of it are none either.
        """
        ids: list[int] = []
        for at, character in enumerate(" " + text if text else ""):
            encoded = character.encode("utf-8")
            if encoded in self._ids:
                ids.append(self._ids[encoded])
            elif all(bytes([b]) in self._bytes for b in encoded):
                ids.extend(self._bytes[bytes([b])] for b in encoded)
            else:
                raise ValueError(f"tokenizer: the vocabulary lacks {character!r}, at position {max(0, at - 1)}")
        return torch.tensor([self.BOS, *self._merged(ids)], dtype=torch.int64)

    def _merged(self, ids: list[int]) -> list[int]:
        """Again and again the pair whose union has the best score becomes one, of equal ones the first."""
        spans = {at: (id, at + 1) for at, id in enumerate(ids)}  # start -> token and end; `before` leads back
        before = {at + 1: at for at in range(len(ids))}
        heap = [pair for at, _ in enumerate(pairwise(ids)) if (pair := self._pair(spans, at))]
        heapify(heap)
        while heap:
            pair = heappop(heap)
            _, start, end, union = pair
            if self._pair(spans, start) != pair:
                continue  # one of the two has been merged with another meanwhile
            del spans[spans[start][1]]
            spans[start], before[end] = (union, end), start
            for neighbour in (before.get(start), start):
                if neighbour is not None and (new := self._pair(spans, neighbour)):
                    heappush(heap, new)
        return [spans[at][0] for at in sorted(spans)]

    def _pair(self, spans: dict[int, tuple[int, int]], start: int) -> tuple[float, int, int, int] | None:
        """(-score, start, end, union) of the token there and its successor, where their union is a token."""
        if start not in spans or spans[start][1] not in spans:
            return None
        first, second_start = spans[start]
        second, end = spans[second_start]
        union = self._ids.get(self.pieces[first] + self.pieces[second])
        return None if union is None else (-self.scores[union], start, end, union)

    def decode(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> str:
        """Without tokens 1 and 2, and without the space that follows a token 1. Raises IndexError for an unknown id."""
        pieces: list[bytes] = []
        previous = None
        for i in checked(token_ids, self.vocab):
            if i not in (self.BOS, self.EOS):
                pieces.append(self.pieces[i].removeprefix(b" ") if previous == self.BOS else self.pieces[i])
            previous = i
        return b"".join(pieces).decode("utf-8", errors="replace")


def _byte(piece: bytes) -> bytes:
    """The byte that a piece `<0xNN>` stands for; nothing for another piece."""
    named = re.fullmatch(rb"<0x([0-9A-Fa-f]{2})>", piece)
    return bytes([int(named[1], 16)]) if named else b""
