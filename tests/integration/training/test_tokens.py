"""`python -m llama train --tokenizer`: training on tokens of a text in place of its characters."""

import math
import re
from dataclasses import replace

import pytest
import tokenizers
import torch

from llama.__main__ import main
from llama.model import checkpoint
from llama.text.byte_pairs import BytePairTokenizer
from llama.text.corpus import Corpus
from llama.text.tokenizer import CharTokenizer, JsonTokenizer, load
from llama.text.windows import split
from llama.training import command as train
from llama.training import evaluation
from llama.training.preparation import prepare
from llama.training.run_file import Saved
from tests.integration.training.small_runs import TEXT, command, small_run
from tests.judge.assertions import assert_identical

VOCAB = 270


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Without charts and samples, which take most of the time of so small a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llama.training.command.draw_losses", lambda path, *_: path.touch())
        patch.setattr("llama.training.command.generate", lambda model, prompt, *_, **__: prompt)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run on tokens that is not begun yet."""
    return small_run(tmp_path_factory.mktemp("corpus"), tokenizer=f"bpe:{VOCAB}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """What such a run leaves and prints."""
    config = replace(tiny, out=tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *words, end="\n", **_: said.append(" ".join(map(str, words)) + end))
        train.run(config)
    return config.out, "".join(said)


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_tokens_are_those_that_the_training_split_teaches(tiny):
    training = split(TEXT)[0]
    taught = BytePairTokenizer.train(training, VOCAB)
    assert taught.merges != BytePairTokenizer.train(TEXT, VOCAB).merges
    prepared = prepare(tiny)
    assert prepared.tokenizer.merges == taught.merges
    assert prepared.unit == "token"


def test_the_splits_are_the_same_parts_of_the_text_as_for_characters(tiny):
    for tokenizer in ("characters", f"bpe:{VOCAB}"):
        prepared = prepare(replace(tiny, tokenizer=tokenizer))
        assert [prepared.tokenizer.decode(part) for part in prepared.splits] == list(split(TEXT))


def test_the_checkpoint_holds_a_tokenizer_json_that_is_read_again(finished):
    out, _ = finished
    assert _files(out / "checkpoint") == ["config.json", "model.safetensors", "tokenizer.json"]
    model, tokenizer = checkpoint.load(out / "checkpoint")
    assert model.config.vocab_size == tokenizer.vocab == VOCAB
    taught = BytePairTokenizer.train(split(TEXT)[0], VOCAB)
    assert tokenizer.encode(TEXT).tolist() == taught.encode(TEXT).tolist()


def test_generate_and_evaluate_take_the_checkpoint_as_it_is(finished, tiny, capsys):
    out, _ = finished
    arguments = ["--prompt", "to be", "--max-new-tokens", "5", "--temperature", "0"]
    assert main(["generate", str(out / "checkpoint"), *arguments]) == 0
    assert capsys.readouterr().out.startswith("to be")
    assert main(["evaluate", str(out / "checkpoint"), "--corpus", tiny.corpus]) == 0
    assert "nats per token" in capsys.readouterr().out


def test_the_report_gives_bits_per_byte_beside_nats_per_token_as_evaluate_does(finished, tiny, capsys):
    out, said = finished
    assert "tokens of a vocabulary of 270" in said
    assert "tokens/s" in said
    assert "Loss in nats per token, in bits per byte (and the number of tokens that" in said
    assert "characters/s" not in said
    for part in ("validation", "test"):
        nats, bits = re.search(rf"  {part} +([\d.]+)   ([\d.]+)", said).groups()
        main(["evaluate", str(out / "checkpoint"), "--corpus", tiny.corpus, "--part", part])
        assert f"{nats} nats per token, {bits} bits per byte" in capsys.readouterr().out


def test_by_default_tokens_are_characters_and_are_called_so(tiny, tmp_path, capsys):
    train.run(replace(tiny, tokenizer="characters", out=tmp_path))
    said = capsys.readouterr().out
    assert "Loss in nats per character, in bits per byte (and the number of characters that" in said
    assert "token" not in said.split("\nWritten")[0]
    # Each character of this text is a byte.
    nats, bits = map(float, re.search(r"validation +([\d.]+)   ([\d.]+)", said).groups())
    assert bits == pytest.approx(nats / math.log(2), abs=2e-4)  # both have four digits


def test_the_entropy_of_a_text_is_the_same_in_bits_per_byte_whatever_its_tokens_are(tiny, monkeypatch):
    text = Corpus("text", TEXT, floor=0.7 * math.log(2))  # 0.7 bits for each character, which is a byte
    monkeypatch.setattr("llama.training.preparation.load_corpus", lambda _: text)
    for tokenizer in ("characters", "bpe:264"):
        prepared = prepare(replace(tiny, tokenizer=tokenizer))
        validation = prepared.splits[1]
        size = evaluation.predicted_bytes(prepared.tokenizer, validation)
        assert evaluation.bits_per_byte(prepared.floor, len(validation) - 1, size) == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["characters.json", "tokenizer.json"])
def test_a_tokenizer_of_a_file_is_used_and_kept(tiny, tmp_path, name):
    given = tmp_path / name
    own = {
        "characters.json": CharTokenizer.from_text(TEXT + "é"),
        "tokenizer.json": BytePairTokenizer.train("abc", 300),
    }
    own[name].save(given)
    train.run(replace(tiny, tokenizer=str(given), out=tmp_path / "out"))
    kept = load(tmp_path / "out" / "checkpoint" / name)
    assert kept.vocab == own[name].vocab
    assert torch.equal(kept.encode(TEXT), own[name].encode(TEXT))


def test_a_tokenizer_that_begins_each_text_with_a_token_leaves_an_empty_split_empty(tiny, tmp_path):
    whole = tokenizers.Tokenizer(tokenizers.models.BPE({"<s>": 0, "a": 1, "b": 2}, []))
    whole.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    whole.add_special_tokens(["<s>"])
    whole.decoder = tokenizers.decoders.Fuse()
    JsonTokenizer(whole).save(tmp_path / "tokenizer.json")
    (tmp_path / "text.txt").write_text("ab" * 40)
    config = replace(tiny, corpus=str(tmp_path / "text.txt"), tokenizer=str(tmp_path / "tokenizer.json"))
    training, validation, test = prepare(replace(config, fractions=(0.5, 0.5, 0.0))).splits
    assert training.tolist() == validation.tolist() == [0, *[1, 2] * 20]
    assert len(test) == 0


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused(tiny, tmp_path):
    whole = tokenizers.Tokenizer(tokenizers.models.BPE({"<unk>": 0, "z": 1}, [], unk_token="<unk>"))
    whole.add_special_tokens(["<unk>"])
    JsonTokenizer(whole).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokenizer.json does not give the text back: .* becomes "):
        prepare(replace(tiny, tokenizer=str(tmp_path / "tokenizer.json")))


def test_the_tokenizer_of_an_earlier_model_in_the_folder_is_gone(tiny, tmp_path):
    for tokenizer, name in ((tiny.tokenizer, "tokenizer.json"), ("characters", "characters.json")):
        train.run(replace(tiny, tokenizer=tokenizer, out=tmp_path, steps=1))
        assert _files(tmp_path / "checkpoint") == sorted(["config.json", "model.safetensors", name])


class Cut(BaseException):
    """The end of a run, as far as the test goes."""


@pytest.fixture
def cut(tiny, tmp_path, monkeypatch):
    """A run on tokens that has ended without a word in step 7."""
    config, step = replace(tiny, out=tmp_path / "run"), train.Trainer.step

    def until(trainer, at, *more):
        if at == 7:
            raise Cut
        return step(trainer, at, *more)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", until)
        with pytest.raises(Cut):
            train.run(config)
    return config


def test_a_run_on_tokens_is_resumed_to_the_last_bit(cut, finished):
    out, _ = finished
    train.run(replace(cut, resume=True))
    weights, others = (checkpoint.load(folder / "checkpoint")[0].state_dict() for folder in (cut.out, out))
    for name, tensor in weights.items():
        assert_identical(tensor, others[name], name)


def _refused(config, capsys):
    capsys.readouterr()
    assert main(command(config)) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


@pytest.mark.parametrize(("tokenizer", "vocab"), [("bpe:271", "271"), ("characters", "22")])
def test_a_run_is_not_resumed_with_another_vocabulary(cut, capsys, tokenizer, vocab):
    assert _refused(replace(cut, tokenizer=tokenizer, resume=True), capsys) == (
        f"llama: train: --tokenizer {tokenizer}, a vocabulary of {vocab}, makes other tokens of the text than "
        f"bpe:{VOCAB}, with which the run in {cut.out} was begun"
    )


def test_a_run_is_resumed_with_the_same_tokens_from_wherever_they_come(cut, tmp_path, capsys):
    prepare(cut).tokenizer.save(tmp_path / "same.json")
    BytePairTokenizer.train(TEXT[::-1], VOCAB).save(tmp_path / "other.json")
    other = replace(cut, tokenizer=str(tmp_path / "other.json"), resume=True)
    assert f"a vocabulary of {VOCAB}, makes other tokens of the text" in _refused(other, capsys)
    assert main(command(replace(other, tokenizer=str(tmp_path / "same.json")))) == 0


def test_a_run_on_characters_is_not_resumed_with_others_of_as_many(tiny, tmp_path, monkeypatch, capsys):
    characters = sorted(set(TEXT))
    for name, more in (("first", "\0"), ("last", "\uffff")):
        CharTokenizer("".join(sorted([*characters, more]))).save(tmp_path / f"{name}.json")
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.json").rename(tmp_path / name / "characters.json")
    config = replace(tiny, tokenizer=str(tmp_path / "first" / "characters.json"), out=tmp_path / "run", steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", _cut)
        with pytest.raises(Cut):
            train.run(config)
    other = replace(config, tokenizer=str(tmp_path / "last" / "characters.json"), resume=True)
    assert "makes other tokens of the text" in _refused(other, capsys)


def _cut(*_):
    raise Cut


def test_a_run_from_before_there_were_other_tokens_goes_on_with_characters_alone(tiny, tmp_path, monkeypatch, capsys):
    config = replace(tiny, tokenizer="characters", out=tmp_path / "run", steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(train, "Saved", lambda *of: Saved(*of[:3]))
        patch.setattr(train.Trainer, "step", _cut)
        with pytest.raises(Cut):
            train.run(config)
    assert "makes other tokens" in _refused(replace(config, tokenizer=f"bpe:{VOCAB}", resume=True), capsys)
    train.run(replace(config, resume=True))


def test_the_sample_begins_with_a_token_of_the_text_even_where_a_character_is_several(tiny, tmp_path, monkeypatch):
    text = "\N{GRINNING FACE}" + TEXT
    monkeypatch.setattr("llama.training.preparation.load_corpus", lambda name: Corpus(name, text))
    begun = []
    monkeypatch.setattr(
        "llama.training.command.generate", lambda model, prompt, *_, **__: begun.append(prompt.tolist()) or prompt
    )
    train.run(replace(tiny, tokenizer="bpe:257", window=2, steps=1, out=tmp_path / "run"))
    assert begun == [[["\N{GRINNING FACE}".encode()[0]]]]
