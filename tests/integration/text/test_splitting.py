"""Text into words, as GPT-2 and Llama 3 split it."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from llama.text.splitting import PATTERNS, pre_tokenize, words

PAIRS = [
    # text, as GPT-2 splits it, as Llama 3 does
    ("", [], []),
    ("Hello world", ["Hello", " world"], ["Hello", " world"]),
    (" to be", [" to", " be"], [" to", " be"]),
    # Contractions: GPT-2 knows them in lower case only; Llama 3 then takes the apostrophe with the letters.
    ("I'm", ["I", "'m"], ["I", "'m"]),
    ("we'll've", ["we", "'ll", "'ve"], ["we", "'ll", "'ve"]),
    ("I'M", ["I", "'", "M"], ["I", "'M"]),
    ("IT'S", ["IT", "'", "S"], ["IT", "'S"]),
    ("DON'TS", ["DON", "'", "TS"], ["DON", "'T", "S"]),
    ("o'clock", ["o", "'", "clock"], ["o", "'clock"]),
    ("'twas", ["'t", "was"], ["'t", "was"]),
    ("it’s", ["it", "’", "s"], ["it", "’s"]),  # not an apostrophe
    # Numbers: whole, or in threes from the left.
    ("1234567", ["1234567"], ["123", "456", "7"]),
    ("in 1623", ["in", " 1623"], ["in", " ", "162", "3"]),
    ("3.14", ["3", ".", "14"], ["3", ".", "14"]),
    ("x²½٣", ["x", "²½٣"], ["x", "²½٣"]),  # numbers that are no digits of ours
    # Spaces: the last of several belongs to the word behind it.
    ("a   b", ["a", "  ", " b"], ["a", "  ", " b"]),
    ("a  ", ["a", "  "], ["a", "  "]),
    ("a  1", ["a", " ", " 1"], ["a", " ", " ", "1"]),
    ("a\tb", ["a", "\t", "b"], ["a", "\tb"]),
    ("a\t\tb", ["a", "\t", "\t", "b"], ["a", "\t", "\tb"]),
    ("a\u3000b", ["a", "\u3000", "b"], ["a", "\u3000b"]),
    # Line ends: spaces like others, or words of their own that keep the spaces before them and not those behind.
    ("a\nb", ["a", "\n", "b"], ["a", "\n", "b"]),
    ("a\n\nb", ["a", "\n", "\n", "b"], ["a", "\n\n", "b"]),
    ("a \r\n  b", ["a", " \r\n ", " b"], ["a", " \r\n", " ", " b"]),
    ("a.\n\nb", ["a", ".", "\n", "\n", "b"], ["a", ".\n\n", "b"]),
    # Punctuation: a run is one word, with the space before it.
    ("a, (b)", ["a", ",", " (", "b", ")"], ["a", ",", " (", "b", ")"]),
    ("a (b)", ["a", " (", "b", ")"], ["a", " (", "b", ")"]),
    ("(b)", ["(", "b", ")"], ["(b", ")"]),
    ("wait...what", ["wait", "...", "what"], ["wait", "...", "what"]),
    ("snake_case", ["snake", "_", "case"], ["snake", "_case"]),
    # Other scripts: a combining mark is no letter, a Chinese sentence is one word, an emoji is punctuation.
    ("e\u0301a", ["e", "\u0301", "a"], ["e", "\u0301a"]),
    ("中文。好", ["中文", "。", "好"], ["中文", "。好"]),
    ("hi 🙂🙂!", ["hi", " 🙂🙂!"], ["hi", " 🙂🙂!"]),
    ("👩\u200d🔬x", ["👩\u200d🔬", "x"], ["👩\u200d🔬", "x"]),
]


@pytest.mark.parametrize(("text", "gpt2", "llama3"), PAIRS)
def test_a_text_is_split_as_each_model_splits_it(text, gpt2, llama3):
    assert pre_tokenize(text, "gpt2") == gpt2
    assert pre_tokenize(text, "llama3") == llama3


HARD = st.text(
    st.sampled_from(
        "sStTlLdDvVeErRmMaß'’ſK \t\n\r\x0b\x1c\x85\u00a0\u2028\u3000\ufeff017٣²½Ⅷé\u0301\u0345中한ا🙂\u200d_.!-("
    )
)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=HARD | st.text())
def test_the_words_joined_are_the_text(pattern, text):
    assert "".join(pre_tokenize(text, pattern)) == text


def _by_the_library(text, pattern):
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    return [word for word, _ in split.pre_tokenize_str(text)]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=HARD)
def test_tokenizers_splits_likewise(pattern, text):
    assert pre_tokenize(text, pattern) == _by_the_library(text, pattern)


@given(text=HARD)
def test_the_pattern_that_tokenizers_holds_for_gpt2_is_ours(text):
    found = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert pre_tokenize(text, "gpt2") == [text[start:end] for _, (start, end) in found]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_letter_newer_than_the_tables_of_tokenizers_is_a_letter_here_alone(pattern):
    new = "\u088f"  # ARABIC LETTER NOON WITH RING ABOVE, of Unicode 17
    if not regex.match(r"\p{L}", new) or len(_by_the_library(f"a{new}b", pattern)) == 1:
        pytest.skip("needs a regex with the tables of Unicode 17, and a tokenizers with older ones")
    assert pre_tokenize(f"a{new}b", pattern) == [f"a{new}b"]
    assert _by_the_library(f"a{new}b", pattern)[0] == "a"


def test_words_are_counted_as_bytes_in_the_order_of_their_first_occurrence():
    found = words("to be or not to be é", "gpt2")
    assert list(found.items()) == [
        (b"to", 1),
        (b" be", 2),
        (b" or", 1),
        (b" not", 1),
        (b" to", 1),
        (" é".encode(), 1),
    ]


def test_no_text_has_no_words():
    assert words("", "llama3") == {}


def test_half_of_a_character_has_no_bytes():
    with pytest.raises(ValueError, match=r"splitting: '\\ud83d' is half of a character"):
        words("a \ud83d", "llama3")


def test_an_unknown_pattern_is_refused():
    with pytest.raises(ValueError, match="splitting: pattern must be one of gpt2, llama3, got 'gpt4'"):
        pre_tokenize("a", "gpt4")
