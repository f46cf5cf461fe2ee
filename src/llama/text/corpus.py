"""A text by its name or path.

corpus = load_corpus("tinyshakespeare")               # or "grammar", or the path of a text file
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from llama.text import grammar
from llama.text.downloads import Unavailable, known_file

GRAMMAR_CHARACTERS, GRAMMAR_SEED = 1_200_000, 1623  # a little more than TinyShakespeare; the year of the First Folio


@dataclass(frozen=True)
class Corpus:
    """A text, with what is known about it."""

    name: str
    text: str
    floor: float | None = None
    """The entropy rate in nats per character, where it is known: no honest loss lies below it in the long run."""
    notice: str | None = None
    """What the reader should be told about where the text came from."""


def load_corpus(name_or_path: str | Path) -> Corpus:
    """`tinyshakespeare`, `grammar`, or the path of a UTF-8 text file.

    TinyShakespeare is found as `known_file` says. With neither file nor network the corpus is `grammar`, and `notice`
    says so.

    Raises ValueError for an unknown name, a file that is empty, repeats one character or is not UTF-8, and a wrong
    TinyShakespeare; OSError for a file that cannot be read.
    """
    if str(name_or_path) == "tinyshakespeare":
        return _tinyshakespeare()
    if str(name_or_path) == "grammar":
        return _grammar()
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"corpus: {path} is neither tinyshakespeare nor grammar nor a file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"corpus: {path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    if not text:
        raise ValueError(f"corpus: {path} is empty")
    if text == text[0] * len(text):
        raise ValueError(f"corpus: {path} has no other character than {text[0]!r}, so there is nothing to predict")
    return Corpus(path.name, text)


def _grammar(notice: str | None = None) -> Corpus:
    return Corpus("grammar", _grammar_text(), grammar.entropy_rate(grammar.SPEECHES, "<speech>"), notice)


@functools.cache
def _grammar_text() -> str:
    return grammar.sample(grammar.SPEECHES, "<speech>", GRAMMAR_CHARACTERS, GRAMMAR_SEED)


def _tinyshakespeare() -> Corpus:
    try:
        return Corpus("tinyshakespeare", known_file("tinyshakespeare.txt").read_bytes().decode("utf-8"))
    except Unavailable as error:
        return _grammar(f"{error}. So the text is drawn from the built-in grammar.")
