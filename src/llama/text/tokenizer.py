"""Text as tokens: characters for the models that are trained here, and the files that other models come with.

tokenizer = CharTokenizer.from_text("to be or not to be")
tokenizer.decode(tokenizer.encode("not")) == "not"

tokenizer = load("Llama-3.2-1B/tokenizer.json")        # or characters.json, or llama2.c's tok512.bin
"""

import json
from collections import Counter
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import tokenizers
import torch
from jaxtyping import Int64
from torch import Tensor

from llama.machine.safe_files import one_line, read_json
from llama.text.llama2c_tokenizer import Llama2cTokenizer
from llama.text.token_ids import checked


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer here does."""

    @property
    def vocab(self) -> int:
        """How many ids there are: 0..vocab-1."""

    def encode(self, text: str) -> Int64[Tensor, "seq"]:
        """The tokens of a text, with those that begin one. Raises ValueError for what the vocabulary lacks."""

    def decode(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD. Raises IndexError for an unknown id."""


@runtime_checkable
class StoredTokenizer(Tokenizer, Protocol):
    """A tokenizer that is written beside the weights of a model."""

    FILE: ClassVar[str]
    """The name of its file there, which says how it is read."""

    def save(self, path: str | Path) -> None:
        """Write the file."""


def load(path: str | Path) -> Tokenizer:
    """The tokenizer of a file: characters.json, llama2.c's *.bin, or else a tokenizer.json.

    Raises ValueError, in one sentence, where the file is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"tokenizer: {path} is not a file")
    if path.name == CharTokenizer.FILE:
        return CharTokenizer.load(path)
    return Llama2cTokenizer.load(path) if path.suffix == ".bin" else JsonTokenizer.load(path)


class CharTokenizer:
    """Token i is the i-th of `characters`, which are distinct and in the order of their code points."""

    FILE: ClassVar[str] = "characters.json"

    def __init__(self, characters: str):
        if len(set(characters)) != len(characters):
            twice = Counter(characters).most_common(1)[0][0]
            raise ValueError(f"tokenizer: characters must be distinct, got {twice!r} twice")
        if half := [character for character in characters if "\ud800" <= character <= "\udfff"]:
            raise ValueError(f"tokenizer: {half[0]!r} is half of a character")
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
        return "".join(self.characters[i] for i in checked(token_ids, self.vocab))

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON."""
        Path(path).write_text(json.dumps({"characters": self.characters}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read what `save` wrote. Raises ValueError where the file holds something else."""
        characters = read_json(path).get("characters")
        if not isinstance(characters, str):
            raise ValueError(f"tokenizer: {path} is not a vocabulary of characters (characters is {characters!r:.40})")
        return cls(characters)


class JsonTokenizer:
    """The tokenizer of a Hugging Face tokenizer.json, by the `tokenizers` library.

    `vocab` may be set to more than it has tokens, for a model with rows that no token has: they are written as nothing.
    """

    FILE: ClassVar[str] = "tokenizer.json"

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        tokenizer.no_truncation()  # files may ask for it, and a prompt would be cut without a word
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.vocab = 1 + max(tokenizer.get_vocab().values(), default=-1)

    @classmethod
    def load(cls, path: str | Path) -> "JsonTokenizer":
        """Raises ValueError where the library cannot read the file."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing more special, and panics with less
            raise ValueError(f"tokenizer: {path} cannot be read ({one_line(error)})") from error

    def encode(self, text: str) -> Int64[Tensor, "seq"]:
        """With the tokens that the file puts around a text. Raises ValueError for what the vocabulary lacks."""
        try:
            return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)
        except Exception as error:  # likewise
            raise ValueError(f"tokenizer: {text!r:.40} cannot be encoded ({one_line(error)})") from error

    def decode(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> str:
        """Without special tokens. Raises IndexError for an id outside the vocabulary."""
        return self._tokenizer.decode(checked(token_ids, self.vocab))

    def save(self, path: str | Path) -> None:
        """Write what was read, without truncation and padding."""
        Path(path).write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
