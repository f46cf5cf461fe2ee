"""Text as words: what byte-pair encoding merges within and never across.

pre_tokenize("He's 2026 years old.", "llama3") == ["He", "'s", " ", "202", "6", " years", " old", "."]
words("to be or not to be", "gpt2")            # {b"to": 1, b" be": 2, b" or": 1, b" not": 1, b" to": 1}

A space belongs to the word behind it, so that joining the words gives the text back, whatever the text is.
"""

from collections import Counter
from typing import Literal, get_args

import regex

Pattern = Literal["gpt2", "llama3"]

PATTERNS: dict[Pattern, str] = {
    # github.com/openai/gpt-2, src/encoder.py. Contractions are lower case, numbers are whole, line ends are spaces.
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # github.com/meta-llama/llama3, llama/tokenizer.py. Contractions are of either case, numbers are cut after three
    # digits, a word takes any one character before it that is no letter, and line ends stay together.
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""The pattern of each model: its alternatives are tried from left to right, and every text consists of matches.

`tokenizers` splits with Oniguruma, whose Unicode tables may be older than those of `regex`: in tokenizers 0.23 they are
of Unicode 16. A letter or digit that is newer is neither there. On every other character the two agree.
"""
_COMPILED = {name: regex.compile(pattern) for name, pattern in PATTERNS.items()}


def pre_tokenize(text: str, pattern: Pattern) -> list[str]:
    """The words of a text, in order. Raises ValueError for a pattern that there is not."""
    if pattern not in _COMPILED:
        raise ValueError(f"splitting: pattern must be one of {', '.join(get_args(Pattern))}, got {pattern!r:.40}")
    found: list[str] = _COMPILED[pattern].findall(text)
    return found


def words(text: str, pattern: Pattern) -> dict[bytes, int]:
    """The distinct words of a text in UTF-8, in the order of their first occurrence, with how often each occurs.

    Raises ValueError for a pattern that there is not, and for half of a surrogate pair, which has no UTF-8.
    """
    return {as_bytes(word): count for word, count in Counter(pre_tokenize(text, pattern)).items()}


def as_bytes(word: str) -> bytes:
    """A word in UTF-8. Raises ValueError for half of a surrogate pair, which has none."""
    try:
        return word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"splitting: {error.object[error.start]!r} is half of a character") from None
