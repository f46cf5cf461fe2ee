"""Characters as tokens: the smallest tokenizer that trains a Llama.

tokenizer = CharTokenizer.from_text("to be or not to be")
tokenizer.decode(tokenizer.encode("not")) == "not"
"""

import json
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor


class CharTokenizer:
    """Token i is the i-th of `characters`, which are distinct and in the order of their code points."""

    def __init__(self, characters: str):
        if len(set(characters)) != len(characters):
            twice = next(c for i, c in enumerate(characters) if c in characters[:i])
            raise ValueError(f"tokenizer: characters must be distinct, got {twice!r} twice")
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The characters that occur in the text."""
        return cls("".join(sorted(set(text))))

    @property
    def vocab(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Int64[Tensor, "seq"]:
        """Raises ValueError for a character that the vocabulary lacks."""
        try:
            return torch.tensor([self._ids[character] for character in text], dtype=torch.int64)
        except KeyError as error:
            at = text.index(error.args[0])
            raise ValueError(f"tokenizer: the vocabulary lacks {error.args[0]!r}, at position {at}") from None

    def decode(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> str:
        """Raises IndexError for an id outside the vocabulary."""
        ids = [int(i) for i in token_ids]
        if outside := [i for i in ids if not 0 <= i < self.vocab]:
            raise IndexError(f"tokenizer: ids must lie in 0..{self.vocab - 1}, got {outside[0]}")
        return "".join(self.characters[i] for i in ids)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON."""
        Path(path).write_text(json.dumps({"characters": self.characters}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read what `save` wrote. Raises ValueError where the file holds something else."""
        try:
            characters = json.loads(Path(path).read_text(encoding="utf-8"))["characters"]
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"tokenizer: {path} is not a vocabulary of characters ({error})") from error
        if not isinstance(characters, str):
            raise ValueError(f"tokenizer: {path} is not a vocabulary of characters (characters is {characters!r:.40})")
        return cls(characters)
