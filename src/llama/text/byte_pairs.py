"""A tokenizer that is trained on a text: byte-pair encoding within words, by the layers of the chapter `tokens`.

tokenizer = BytePairTokenizer.train("to be or not to be", vocab=258)
tokenizer.merges == [(32, 98), (116, 111)]               # a space and b make 256, t and o make 257
tokenizer.encode("to be").tolist() == [257, 256, 101]
tokenizer.save("tokenizer.json")                         # which llama.text.tokenizer.load and transformers read

Any text can be written, since tokens 0 to 255 are the bytes.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
import torch
from jaxtyping import Int64
from tokenizers import Regex, decoders, models, pre_tokenizers
from torch import Tensor

from llama import implementation
from llama.implementation import Implementation
from llama.text.splitting import PATTERNS, Pattern, as_bytes, pre_tokenize, words
from llama.text.token_ids import checked
from llama.text.tokenizer import JsonTokenizer

BYTES = 256
LAYERS = ("bpe_train", "bpe_encode", "bpe_decode")
"""The layers that a tokenizer calls."""


class BytePairTokenizer:
    """Tokens 0..255 are the bytes in order, and token 256 + i is `merges[i]`: two smaller ids, side by side in a word.

    `pattern` names how a text is split into words. `layers` is whose layers are called; what they lack comes from
    `vectorized`. Raises ValueError or TypeError for merges that are none.
    """

    FILE: ClassVar[str] = JsonTokenizer.FILE

    def __init__(
        self, merges: list[tuple[int, int]], pattern: Pattern = "llama3", layers: Implementation | str = "fused"
    ):
        _check_merges(merges)
        layers = _completed(layers)
        pre_tokenize("", pattern)
        self.merges, self.pattern = merges, pattern
        # Checking all merges for each word would take longer than the word.
        self._layers = layers.unchecked()

    @classmethod
    def train(
        cls, text: str, vocab: int, pattern: Pattern = "llama3", layers: Implementation | str = "fused"
    ) -> "BytePairTokenizer":
        """A tokenizer of `vocab` tokens, or of fewer where the words of the text have no more pairs to merge.

        Raises ValueError for a vocabulary without room for a merge, and for half of a surrogate pair in the text.
        """
        check_vocab(vocab)
        layers = _completed(layers)
        merges = layers.bpe_train(words(text, pattern), vocab)
        try:
            _check_merges(merges)
        except (TypeError, ValueError) as error:
            what = str(error).removeprefix("bpe_encode: ")
            raise ValueError(
                f"tokenizer: what bpe_train of {layers.name} returned is no list of merges: {what}"
            ) from None
        return cls(merges, pattern, layers)

    @property
    def vocab(self) -> int:
        return BYTES + len(self.merges)

    def encode(self, text: str, watch: Callable[[Collection[str]], Iterable[str]] = iter) -> Int64[Tensor, "seq"]:
        """`watch` is given the distinct words and yields them, so that it may show how far it has come.

        Raises ValueError for half of a surrogate pair, which has no bytes.
        """
        found = pre_tokenize(text, self.pattern)
        # Most words of a text occur many times in it; each is encoded once.
        ids = {word: self._layers.bpe_encode(as_bytes(word), self.merges) for word in watch(set(found))}
        return torch.tensor(list(chain.from_iterable(ids[word] for word in found)), dtype=torch.int64)

    def decode(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> str:
        """Bytes that are no UTF-8 become U+FFFD. Raises IndexError for an id outside the vocabulary."""
        return self.bytes_of(token_ids).decode("utf-8", errors="replace")

    def bytes_of(self, token_ids: Int64[Tensor, "seq"] | list[int]) -> bytes:
        """What the tokens stand for: a single one may be part of a character."""
        found: bytes = self._layers.bpe_decode(checked(token_ids, self.vocab), self.merges)
        return found

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face tokenizer.json with the same ids.

        Raises ValueError where two tokens are the same bytes, which no training makes and the format cannot hold.
        """
        tokens = byte_characters()
        for left, right in self.merges:
            tokens.append(tokens[left] + tokens[right])
        ids = {token: i for i, token in enumerate(tokens)}
        if twice := [i for i, token in enumerate(tokens) if ids[token] != i]:
            raise ValueError(
                f"tokenizer: tokens {twice[0]} and {ids[tokens[twice[0]]]} are both {self.bytes_of(twice[:1])!r}, and "
                f"a {self.FILE} holds each only once"
            )
        whole = tokenizers.Tokenizer(models.BPE(ids, [(tokens[left], tokens[right]) for left, right in self.merges]))
        whole.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERNS[self.pattern]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        whole.decoder = decoders.ByteLevel()
        Path(path).write_text(whole.to_str(pretty=True), encoding="utf-8")


def check_vocab(vocab: int) -> None:
    """Raise ValueError for a vocabulary without room for a merge."""
    if vocab <= BYTES:
        raise ValueError(f"tokenizer: vocab must be at least {BYTES + 1}, the bytes and one merge, got {vocab}")


def _check_merges(merges: Any) -> None:
    """Raise TypeError or ValueError for merges that are none, by the contract of `bpe_encode`."""
    implementation.load("fused").bpe_encode(b"", merges)


def byte_characters() -> list[str]:
    """The character that a tokenizer.json writes for each byte: its own where that is visible, else from U+0100 on.

    Source: github.com/openai/gpt-2, src/encoder.py.
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(byte if byte in visible else next(others)) for byte in range(BYTES)]


def _completed(layers: Implementation | str) -> Implementation:
    return (implementation.load(layers) if isinstance(layers, str) else layers).completed()
