"""`python -m llama evaluate`: the loss of a checkpoint on a text, in bits per byte too, and what few bits cost."""

import math
import re

import pytest
import tokenizers
import torch

from llama.__main__ import main
from llama.model import checkpoint
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.model.quantized import quantized
from llama.text.tokenizer import CharTokenizer
from llama.training import evaluation
from tests.judge.tolerances import LOSS

CHARACTERS, WINDOW = "\n abcdeé", 12
TEXT = "bad é\ncab dé ace " * 8
PRINTED = 0.5e-4 + LOSS
"""Losses are printed with four digits."""
PEEKING = """
from llama.implementation import load
def attention(q, k, v, causal=True, mask=None):
    return load("vectorized").attention(q, k, v, False, mask)
"""


@pytest.fixture
def model():
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.4}
    return Llama(LlamaConfig(vocab_size=len(CHARACTERS), max_position_embeddings=WINDOW, **sizes)).eval()


@pytest.fixture
def told(model, tmp_path, capsys):
    """What is printed with these arguments."""
    checkpoint.save(tmp_path / "mine", model, CharTokenizer(CHARACTERS))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")

    def told(*arguments):
        capsys.readouterr()
        assert main(["evaluate", str(tmp_path / "mine"), "--corpus", str(tmp_path / "text.txt"), *arguments]) == 0
        return capsys.readouterr().out

    return told


def _ids():
    return CharTokenizer(CHARACTERS).encode(TEXT)


def _loss(model, ids):
    """Token by token, each from what precedes it in its window."""
    total = 0.0
    with torch.no_grad():
        for t in range(1, len(ids)):
            begun = (t - 1) // WINDOW * WINDOW
            total -= model(ids[None, begun:t])[0, -1].log_softmax(0)[ids[t]].item()
    return total / (len(ids) - 1)


def _numbers(pattern, text):
    return [float(number) for number in re.search(pattern, text).groups()]


def test_every_token_but_the_first_is_predicted_from_its_window(model, told):
    (loss,) = _numbers(r"mine: ([\d.]+) nats per token", told("--part", "all"))
    assert loss == pytest.approx(_loss(model, _ids()), abs=PRINTED)


def test_bits_per_byte_are_those_of_the_text_that_is_predicted(told):
    """Each é has two bytes."""
    loss, bits = _numbers(r"mine: ([\d.]+) nats per token, ([\d.]+) bits per byte", told("--part", "all"))
    assert bits == pytest.approx(loss * (len(TEXT) - 1) / math.log(2) / len(TEXT[1:].encode()), abs=3 * PRINTED)


@pytest.mark.parametrize(("part", "first", "end"), [("train", 0, 0.8), ("validation", 0.8, 0.9), ("test", 0.9, 1)])
def test_a_part_is_that_of_training(model, told, part, first, end):
    ids = _ids()[round(first * len(TEXT)) : round(end * len(TEXT))]
    out = told("--part", part)
    assert f"{part}: {len(ids):,} tokens, " in out
    assert _numbers(r"mine: ([\d.]+) nats", out) == [pytest.approx(_loss(model, ids), abs=PRINTED)]


def test_so_many_tokens_are_the_first_ones(model, told):
    out = told("--part", "all", "--tokens", "31")
    assert _numbers(r"mine: ([\d.]+) nats", out) == [pytest.approx(_loss(model, _ids()[:31]), abs=PRINTED)]


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_cost_what_the_loss_grows_by(model, told, bits):
    out = told("--part", "all", "--quantize", str(bits))
    before, after = _loss(model, _ids()), _loss(quantized(model, bits), _ids())
    assert _numbers(rf"{bits} bits: ([\d.]+) nats", out) == [pytest.approx(after, abs=PRINTED)]
    assert _numbers(rf"{bits} bits cost ([-+\d.]+) nats", out) == [pytest.approx(after - before, abs=PRINTED)]


def test_a_model_that_reads_the_future_is_told(told, tmp_path):
    (tmp_path / "peeking.py").write_text(PEEKING)
    assert "mine reads the future: " in told("--part", "all", "--impl", str(tmp_path / "peeking.py"))
    assert "reads the future" not in told("--part", "all")


def test_what_half_precision_rounds_is_not_taken_for_the_future(told):
    out = told("--part", "all", "--dtype", "bfloat16")
    assert "nats per token" in out
    assert "reads the future" not in out


def _with_the_tokens(tmp_path, *known):
    """In place of the characters, a tokenizer that knows these tokens, and writes the first for all else."""
    ids = {token: i for i, token in enumerate(known)}
    whole = tokenizers.Tokenizer(tokenizers.models.BPE(ids, [], unk_token=known[0]))
    whole.add_special_tokens([known[0]])
    whole.decoder = tokenizers.decoders.Fuse()
    whole.save(str(tmp_path / "mine" / "tokenizer.json"))
    (tmp_path / "mine" / "characters.json").unlink()


def test_of_a_tokenizer_that_loses_text_it_is_said(told, tmp_path):
    lost = "does not give all of the text back; bits per byte are those of what it gives"
    assert lost not in told("--part", "all")
    _with_the_tokens(tmp_path, "<unk>", *CHARACTERS[1:])
    assert lost in told("--part", "all")


def test_a_tokenizer_that_gives_nothing_of_the_text_back_is_refused(told, tmp_path, capsys):
    _with_the_tokens(tmp_path, "<unk>", *"abcdefg")
    (tmp_path / "text.txt").write_text("éè" * 20, encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "mine"), "--corpus", str(tmp_path / "text.txt"), "--part", "all"]) == 2
    assert "evaluate: the tokenizer knows nothing of all of " in capsys.readouterr().err


def test_bits_per_byte_of_one_byte_tokens_are_nats_in_bits():
    assert evaluation.bits_per_byte(math.log(2), 100, 100) == pytest.approx(1.0)
    assert evaluation.bits_per_byte(math.log(2), 100, 200) == pytest.approx(0.5)
