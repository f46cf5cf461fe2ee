"""`python -m llama generate`: prompts, ends, samples, whole characters, and what `stream` refuses."""

import io
import json
import os
import re
import sys

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.__main__ import main
from llama.generation.command import SEPARATOR
from llama.generation.stream import generate, stream
from llama.generation.whole_characters import pieces
from llama.model import checkpoint
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text import downloads
from llama.text.byte_pairs import BytePairTokenizer
from llama.text.downloads import FILES
from llama.text.llama2c_tokenizer import Llama2cTokenizer
from llama.text.tokenizer import CharTokenizer, JsonTokenizer, load

CHARACTERS = "\n abcdeé"
VOCAB = len(CHARACTERS)
FEW = ("--max-new-tokens", 40)


def _model(**more):
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 12}
    return Llama(LlamaConfig(**({"vocab_size": VOCAB, "initializer_range": 0.5} | sizes | more)))


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", _model(), CharTokenizer(CHARACTERS))
    return tmp_path / "checkpoint"


def _texts(capsys, folder, *arguments):
    capsys.readouterr()
    assert main(["generate", str(folder), *map(str, arguments)]) == 0
    return capsys.readouterr().out.removesuffix("\n")


# Which text: the prompt, the seed and the samples.


def test_the_prompt_stands_before_what_is_generated(folder, capsys):
    text = _texts(capsys, folder, "--prompt", "abé", "--max-new-tokens", 30)
    assert text.startswith("abé")
    assert len(text) == 3 + 30


def test_without_a_prompt_a_new_line_begins_where_the_tokenizer_has_no_beginning(folder, capsys):
    assert _texts(capsys, folder, "--max-new-tokens", 3).startswith("\n")


def test_a_prompt_may_come_from_a_file_or_from_standard_input(folder, capsys, tmp_path, monkeypatch):
    expected = _texts(capsys, folder, *FEW, "--prompt", "éa\n")
    (tmp_path / "prompt.txt").write_bytes("éa\n".encode())
    assert _texts(capsys, folder, *FEW, "--prompt-file", tmp_path / "prompt.txt") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("éa\n".encode()), "ascii"))
    assert _texts(capsys, folder, *FEW, "--prompt", "-") == expected


@pytest.mark.parametrize("samples", [1, 3])
def test_the_same_seed_gives_the_same_texts_and_another_seed_others(folder, capsys, samples):
    texts = [_texts(capsys, folder, *FEW, "--samples", samples, "--seed", seed) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_what_the_encoding_of_the_output_lacks_is_written_as_its_code(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True))
    assert main(["generate", str(folder), "--prompt", "é", "--max-new-tokens", "0"]) == 0
    assert sys.stdout.buffer.getvalue() == rb"\xe9" + os.linesep.encode()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_where_a_stream_is_closed_the_rest_is_written(folder, capsys, monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    assert main(["generate", str(folder), "--prompt", "ab", "--max-new-tokens", "0"]) == 0
    out, err = capsys.readouterr()
    assert (err if name == "stdout" else out).startswith("0 tokens" if name == "stdout" else "ab")


def test_a_prompt_from_a_closed_standard_input_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", str(folder), "--prompt", "-"]) == 2
    assert capsys.readouterr().err == "llama: generate: there is no standard input\n"


def test_several_samples_are_printed_one_after_the_other(folder, capsys):
    texts = _texts(capsys, folder, "--samples", 3, "--prompt", "ab", "--max-new-tokens", 20, "--temperature", 2)
    parts = texts.split("\n" + SEPARATOR)
    assert [len(part) for part in parts] == [22, 22, 22]
    assert {part[:2] for part in parts} == {"ab"}
    assert len(set(parts)) == 3


def test_several_samples_of_no_token_are_the_prompt_alone(folder, capsys):
    texts = _texts(capsys, folder, "--samples", 3, "--prompt", "ab", "--max-new-tokens", 0)
    assert texts.split("\n" + SEPARATOR) == ["ab"] * 3


def test_without_a_prompt_and_a_line_break_the_first_character_begins(tmp_path, capsys):
    checkpoint.save(tmp_path, _model(vocab_size=3), CharTokenizer("xyz"))
    assert _texts(capsys, tmp_path, "--max-new-tokens", 3).startswith("x")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_coldest_temperature_draws_the_likeliest_in_half_precision_too(dtype):
    model = _model().to(dtype)
    prompt = torch.zeros(1, 1, dtype=torch.int64)
    assert torch.equal(generate(model, prompt, 9, temperature=1e-6), generate(model, prompt, 9, temperature=0))


def test_at_temperature_0_all_samples_are_the_same_and_the_likeliest(folder, capsys):
    one = _texts(capsys, folder, "--prompt", "ab", "--temperature", 0, "--max-new-tokens", 9)
    three = _texts(capsys, folder, "--prompt", "ab", "--temperature", 0, "--max-new-tokens", 9, "--samples", 3)
    assert three.split("\n" + SEPARATOR) == [one] * 3
    model, tokenizer = checkpoint.load(folder)
    ids = tokenizer.encode("ab")[None]
    for _ in range(9):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(dim=-1)), dim=1)
    assert tokenizer.decode(ids[0]) == one


@pytest.mark.parametrize(("flag", "value"), [("--top-k", 1), ("--top-p", 1e-6), ("--min-p", 1)])
def test_filters_that_leave_one_token_give_the_text_of_temperature_0(folder, capsys, flag, value):
    likeliest = _texts(capsys, folder, *FEW, "--prompt", "ab", "--temperature", 0)
    assert _texts(capsys, folder, *FEW, "--prompt", "ab", flag, value) == likeliest
    assert _texts(capsys, folder, *FEW, "--prompt", "ab") != likeliest


def test_how_many_tokens_and_how_fast_is_written_on_standard_error(folder, capsys):
    assert main(["generate", str(folder), "--max-new-tokens", "7", "--samples", "2"]) == 0
    assert re.fullmatch(r"14 tokens in \d+\.\d s, [\d,]+ tokens/s\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("multiplies", "by_default"), [(True, torch.float16), (False, torch.float32)], ids=["bfloat16 is fast", "it is not"]
)
def test_dtype_is_what_the_weights_are_turned_into_and_else_they_stay_where_that_is_fast(
    folder, capsys, monkeypatch, multiplies, by_default
):
    monkeypatch.setattr("llama.generation.loading.multiplies_bfloat16", lambda device: multiplies)
    seen = []

    def spy(model, *_, **__):
        parameter = next(model.parameters())
        seen.append((parameter.dtype, model.compute_dtype))
        return iter([])

    monkeypatch.setattr("llama.generation.command.stream", spy)
    _model().half().save_pretrained(folder)
    for arguments in ([], ["--dtype", "float32"], ["--dtype", "bfloat16"]):
        _texts(capsys, folder, *arguments)
    assert seen == [(by_default, None), (torch.float32, None), (torch.float16, torch.bfloat16)]


# Where it ends.


@pytest.mark.parametrize("ends", [3, [3, 5]], ids=["one end", "several ends"])
@pytest.mark.parametrize("samples", [1, 5])
def test_a_text_ends_before_the_token_that_ends_it(folder, capsys, ends, samples):
    _model(eos_token_id=ends).save_pretrained(folder)
    texts = _texts(capsys, folder, *FEW, "--prompt", " ", "--samples", samples, "--seed", 2).split("\n" + SEPARATOR)
    _model().save_pretrained(folder)
    endless = _texts(capsys, folder, *FEW, "--prompt", " ", "--samples", samples, "--seed", 2).split("\n" + SEPARATOR)
    letters = "b" if ends == 3 else "bd"
    assert texts == [re.split(f"[{letters}]", text)[0] for text in endless]


def test_a_sequence_that_has_ended_repeats_its_end_until_all_have_ended():
    model = _model()
    prompt = torch.zeros(6, 1, dtype=torch.int64)
    ids = generate(model, prompt, 200, seed=5, ends=[3])
    ended = ids == 3
    assert ended.any(dim=1).all()
    assert torch.equal(ended, ended.cummax(dim=1).values)
    assert (~ended[:, -2]).any()  # nothing is computed after the last has ended
    assert ids.shape[1] < 201


def test_without_an_end_there_are_as_many_tokens_as_were_asked_for():
    prompt = torch.zeros(2, 1, dtype=torch.int64)
    assert generate(_model(), prompt, 30).shape == (2, 31)
    assert generate(_model(), prompt, 0).shape == (2, 1)


def test_a_context_larger_than_the_memory_takes_none_that_is_not_used():
    # A cache of all positions would take hundreds of terabytes.
    prompt = torch.zeros(1, 1, dtype=torch.int64)
    for batch in (1, 2):
        ids = generate(_model(max_position_embeddings=2**40), prompt.expand(batch, -1), 3)
        assert torch.equal(ids, generate(_model(), prompt.expand(batch, -1), 3))


# Whole characters.

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = ["<unk>", "<s>", "</s>", *BYTES]
LLAMA2C = Llama2cTokenizer([*(piece.encode() for piece in [*SPECIAL, " ", " a", "é"]), b"\xe2\x82"], [0.0] * 263)


def _byte_fallback():
    """Llama 2's kind of tokenizer: a mark for the space, and bytes for what is no token."""
    pieces = [*SPECIAL, "▁", "▁a", "é", "a"]
    model = tokenizers.models.BPE(
        {p: i for i, p in enumerate(pieces)}, [("▁", "a")], byte_fallback=True, unk_token="<unk>"
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def _byte_level():
    """Llama 3's kind of tokenizer: every token is some bytes."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({p: i for i, p in enumerate(alphabet)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


# Of a pair, the library takes the prefix off the second, which is shorter than the prefix: it panics.
PANIC = json.dumps(
    {
        "model": {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": [["a", "b"]],
            "continuing_subword_prefix": "####",
        }
    }
)
TOKENIZERS = {
    "characters": CharTokenizer("ab é€😀\ufffd"),
    "llama2.c": LLAMA2C,
    "byte fallback": JsonTokenizer(_byte_fallback()),
    "byte level": JsonTokenizer(_byte_level()),
    # Of 😀, which has the bytes F0 9F 98 80, a space takes the first two.
    "byte pairs": BytePairTokenizer([(0x20, 0xF0), (256, 0x9F), (0x98, 0x80)]),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(prompt=st.text("ab é€😀", min_size=1, max_size=5), text=st.text("ab é€😀", min_size=1, max_size=8))
def test_a_text_is_written_in_whole_characters(tokenizer, prompt, text):
    both, before = tokenizer.encode(prompt + text).tolist(), tokenizer.encode(prompt).tolist()
    if both[: len(before)] != before:
        return  # the prompt ends within a token, and generating would begin anew there
    parts = list(pieces(tokenizer, before, both[len(before) :]))
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


# Not byte fallback: there one wrong byte makes all bytes beside it wrong, those that have been written too.
@pytest.mark.parametrize(
    "tokenizer", [TOKENIZERS[name] for name in ("characters", "llama2.c", "byte level", "byte pairs")]
)
@given(data=st.data())
def test_any_tokens_at_all_are_written_as_the_text_that_they_are(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab - 1), max_size=12))
    before = tokenizer.encode("a").tolist()
    whole = tokenizer.decode(before + ids)
    assert "".join(pieces(tokenizer, before, ids)) == whole.removeprefix(tokenizer.decode(before))


def test_a_token_that_ends_within_a_character_is_written_with_the_rest_of_it():
    tokenizer = TOKENIZERS["byte pairs"]
    tokens = tokenizer.encode(" 😀b").tolist()
    assert [tokenizer.bytes_of([token]) for token in tokens] == [b" \xf0\x9f", b"\x98\x80", b"b"]
    parts = pieces(tokenizer, tokenizer.encode("a").tolist(), remaining := iter(tokens))
    assert next(parts) == " 😀"
    assert list(remaining) == [ord("b")]


def test_each_piece_is_there_as_soon_as_it_is_complete():
    tokens = iter([3 + 0xC3, 3 + 0xA9, 260, 3 + 0xE2])
    parts = pieces(LLAMA2C, [1], tokens)
    assert next(parts) == "é"
    assert next(tokens) == 260  # what stands behind has not been asked for


# Tokenizer files.


def test_a_folder_with_a_tokenizer_json_is_read_by_the_tokenizers_library(tmp_path, capsys):
    _model(vocab_size=300, eos_token_id=2).save_pretrained(tmp_path)
    _byte_fallback().save(str(tmp_path / "tokenizer.json"))
    _, tokenizer = checkpoint.load(tmp_path)
    assert tokenizer.encode(" a").tolist() == [1, 259, 260]
    assert tokenizer.decode([1, 260, 261, 2]) == "aé"
    text = _texts(capsys, tmp_path, "--prompt", "a a", "--max-new-tokens", 0)
    assert text == "a a"


def test_a_tokenizer_json_that_asks_for_a_cut_cuts_no_prompt(tmp_path):
    tokenizer = _byte_fallback()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load(tmp_path / "tokenizer.json").encode("aaaa")) == 5


def test_rows_that_no_token_has_are_written_as_nothing(tmp_path, capsys):
    model = _model(vocab_size=300)
    torch.nn.init.zeros_(model.lm_head.weight[:256].data)
    model.lm_head.weight.data[256:] *= 9  # all that is drawn, with either sign of the features
    model.save_pretrained(tmp_path)
    _byte_level().save(str(tmp_path / "tokenizer.json"))
    written = _texts(capsys, tmp_path, *FEW, "--prompt", "ab")
    assert written.startswith("ab")
    assert len(written) < 2 + 40


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("characters.json", '{"characters": "ab\\ud800"}', r"'\\ud800' is half of a character"),
        ("characters.json", '{"characters": "abb"}', "characters must be distinct, got 'b' twice"),
        ("tokenizer.json", PANIC, "tokenizer.json cannot be read .range end index"),
    ],
)
def test_a_tokenizer_file_that_makes_no_sense_is_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path / name)


def test_a_tokenizer_may_be_named(folder, capsys, tmp_path):
    other = tmp_path / "characters.json"
    CharTokenizer("éedcba \n").save(other)
    text = _texts(capsys, folder, *FEW, "--tokenizer", other, "--prompt", "\n", "--temperature", 0)
    same_ids = _texts(capsys, folder, *FEW, "--prompt", "é", "--temperature", 0)
    assert text == same_ids.translate(str.maketrans(CHARACTERS, "éedcba \n"))


def test_the_small_model_is_known_by_its_name(tmp_path, monkeypatch, capsys):
    asked = []

    def fetch(url, sha256):
        asked.append((url.rpartition("/")[2], sha256))
        raise ConnectionError("refused")

    monkeypatch.setenv("LLAMA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(downloads, "fetch", fetch)
    assert main(["generate", "stories260K"]) == 2
    assert asked == [("stories260K.bin", FILES["stories260K.bin"][1])]
    message = capsys.readouterr().err
    assert message == (
        "llama: stories260K.bin could not be fetched (ConnectionError); "
        f"{tmp_path / 'stories260K.bin'} does not exist\n"
    )


# Wrong input.


def test_a_prompt_that_is_no_batch_is_refused():
    with pytest.raises(ValueError, match=r"generate: token_ids must be \[batch seq\], got \[3\]"):
        stream(_model(), torch.zeros(3, dtype=torch.int64), 3)


def test_a_context_that_is_too_short_is_refused_before_the_first_token_is_asked_for():
    with pytest.raises(ValueError, match="the prompt must have 1 to 12 tokens, got 0"):
        stream(_model(), torch.zeros(1, 0, dtype=torch.int64), 3)


def test_characters_json_that_holds_something_else_is_refused(folder, capsys):
    for content in ('{"characters": "aba"}', '{"characters": 3}', "[]", "{"):
        (folder / "characters.json").write_text(content)
        assert main(["generate", str(folder)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] is None
