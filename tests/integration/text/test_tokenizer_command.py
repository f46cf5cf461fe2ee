"""`python -m llama tokenizer train`. What it refuses is in tests/integration/command_line/test_wrong_input.py."""

import io

import pytest

from llama.__main__ import main
from llama.text.byte_pairs import BytePairTokenizer
from llama.text.splitting import pre_tokenize
from llama.text.tokenizer import load

TEXT = "To be, or not to be: that's the question.\n" * 3


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What is printed with these arguments, in a folder with the text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)

    def told(*arguments):
        assert main(["tokenizer", "train", "--corpus", "text.txt", *arguments]) == 0
        return capsys.readouterr().out

    return told


@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_the_tokenizer_that_is_written_is_the_one_that_the_text_trains(told, tmp_path, pattern):
    told("--vocab", "270", "--pattern", pattern)
    written = load(tmp_path / "out" / "tokenizer" / "tokenizer.json")
    trained = BytePairTokenizer.train(TEXT, 270, pattern)
    assert written.vocab == 270
    assert written.encode(TEXT).tolist() == trained.encode(TEXT).tolist()


def test_the_report_says_how_many_bytes_a_token_has_and_which_are_the_longest(told, tmp_path):
    out = told("--vocab", "280", "--out", "words.json")
    tokens = len(load(tmp_path / "words.json").encode(TEXT))
    assert "Corpus text.txt: 126 bytes, split into words as llama3 splits them; layers of fused\n" in out
    assert "Vocabulary: 280 tokens, the 256 bytes and 24 merges\n" in out
    assert f"Bytes per token: {126 / tokens:.3f}, {tokens} tokens for the whole corpus\n" in out
    assert "Longest tokens: ' question', ' that', ' ques', ' the', ' not', 'tion', ' th', ' be'\n" in out
    assert out.endswith("Written: words.json\n")


def test_in_a_terminal_a_bar_shows_how_many_words_are_encoded(told, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    told("--vocab", "270")
    assert "encoding:   0%" in terminal.getvalue()
    words = len(set(pre_tokenize(TEXT, "llama3")))
    assert f"/{words} " in terminal.getvalue()


def test_a_vocabulary_that_the_text_cannot_fill_is_told_and_written(told, tmp_path):
    out = told("--vocab", "9999", "--out", "words.json")
    reached = load(tmp_path / "words.json").vocab
    assert f"Vocabulary: {reached} tokens" in out
    assert "  9,999 were asked for; every word of this text is one token before that\n" in out
    assert "were asked for" not in told("--vocab", str(reached))


def test_a_learners_layers_train_and_what_they_lack_is_said(told, tmp_path):
    (tmp_path / "mine.py").write_text("def bpe_train(words, vocab):\n    return [(98, 101)]\n")
    out = told("--impl", "mine.py", "--vocab", "257")
    assert "layers of mine (from vectorized: bpe_encode, bpe_decode)" in out
    assert "Longest tokens: 'be'\n" in out


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ("[[98, 101]]", "merges[0] must be a tuple of 2, got [98, 101]"),
        ("[(98, 300)]", "merges[0] must be a pair of ids in 0..255, got (98, 300)"),
        ("None", "merges must be a list, got NoneType"),
    ],
)
def test_what_is_no_list_of_merges_is_told_of_whom_it_comes_from(told, tmp_path, capsys, returned, what):
    (tmp_path / "mine.py").write_text(f"def bpe_train(words, vocab):\n    return {returned}\n")
    assert main(["tokenizer", "train", "--corpus", "text.txt", "--impl", "mine.py", "--vocab", "257"]) == 2
    sentence = f"llama: tokenizer: what bpe_train of mine returned is no list of merges: {what}\n"
    assert capsys.readouterr().err == sentence
