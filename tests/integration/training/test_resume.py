"""A run that is killed, stopped or cut off goes on as if nothing had happened: the same bits, not nearly the same."""

import csv
import json
import math
import os
import random
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from llama.__main__ import main
from llama.model import checkpoint
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import command as train
from llama.training import preparation, run_file
from llama.training.distributed import ALONE
from llama.training.losses import Losses
from llama.training.options import PRESETS, flags
from llama.training.trainer import Trainer
from tests.integration.training.small_runs import TEXT, command, small_run
from tests.judge.assertions import assert_identical
from tests.session.running import programs


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Plots and samples, which take most of the time of so small a run, are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llama.training.command.draw_losses", lambda path, *_: path.touch())
        patch.setattr("llama.training.command._report", lambda *_: None)
        yield


@pytest.fixture(autouse=True)
def _signals():
    """As a terminal has them: what a shell starts in its background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def through(tmp_path_factory, tiny):
    """The folder of a run that nothing has interrupted."""
    out = tmp_path_factory.mktemp("through")
    train.run(replace(tiny, out=out))
    return out


class Cut(BaseException):
    """The end of a run, as far as the test goes."""


@pytest.fixture
def cut(tmp_path, tiny, monkeypatch):
    """A run that has ended without a word in step 7, counted from 0; the last that was saved is step 6."""
    config = replace(tiny, out=tmp_path / "run")
    _cut(config, 7, monkeypatch)
    return config


def _cut(config, number, monkeypatch):
    step = Trainer.step

    def until(trainer, at, *more):
        if at == number:
            raise Cut
        return step(trainer, at, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", until)
        with pytest.raises(Cut):
            train.run(config)


def _weights(out):
    return checkpoint.load(out / "checkpoint")[0].state_dict()


def _assert_same_run(out, other):
    """The same losses, rates and norms, row by row, and the same weights."""
    assert (out / "losses.csv").read_bytes() == (other / "losses.csv").read_bytes()
    weights, others = _weights(out), _weights(other)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert_identical(tensor, others[name], name)


def _refused(config, capsys, sentence, beginning="llama: train: "):
    """Refused on the command line in one sentence and with exit code 2; what is in the folder stays as it is."""
    before = _held(config.out)
    capsys.readouterr()
    assert main(command(config)) == 2
    said = capsys.readouterr().err
    assert said.startswith(beginning)
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert _held(config.out) == before


def _held(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# What a run is resumed from.


@pytest.mark.parametrize("number", [0, 1, 5, 11])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_last_bit(tmp_path, tiny, through, number, monkeypatch):
    config = replace(tiny, out=tmp_path)
    _cut(config, number, monkeypatch)
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)


@pytest.mark.parametrize(
    "change",
    [{"dtype": "bfloat16"}, {"muon_lr": 0.0}, {"impl": "vectorized", "dropout": 0.0}, {"accumulate": 2}],
    ids=["bfloat16", "AdamW alone", "vectorized", "in two parts"],
)
def test_a_run_of_another_kind_is_resumed_to_the_last_bit_too(tmp_path, tiny, change, monkeypatch):
    config = replace(tiny, **change, out=tmp_path / "through")
    train.run(config)
    config = replace(config, out=tmp_path / "cut")
    _cut(config, 4, monkeypatch)
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path / "cut", tmp_path / "through")


@pytest.mark.parametrize(("implementation_name", "moves"), [("fused", False), ("vectorized", True)])
def test_weights_lie_in_memory_as_a_step_leaves_them_since_a_sum_may_depend_on_where_its_terms_lie(
    tiny, implementation_name, moves
):
    def trainer():
        model = Llama(preparation.model_config(tiny, 23), implementation_name)
        model.reset_parameters(torch.Generator().manual_seed(0))
        return Trainer(tiny, model, Windows(torch.arange(100) % 23, tiny.window))

    def places(trainer):
        """How far into its memory each weight lies, and with which others it shares it."""
        parameters = dict(trainer.model.named_parameters())
        memories = [p.untyped_storage().data_ptr() for p in parameters.values()]
        return {
            name: (p.storage_offset(), memories.index(m))
            for (name, p), m in zip(parameters.items(), memories, strict=True)
        }

    stepped, loaded = trainer(), trainer()
    stepped.step(0)
    loaded.load(stepped.state())
    assert places(loaded) == places(stepped)
    assert (places(stepped) != places(trainer())) == moves


def test_at_most_save_every_steps_are_lost(tmp_path, tiny, through, monkeypatch):
    config = replace(tiny, out=tmp_path, save_every=3)
    _cut(config, 8, monkeypatch)
    assert len(Losses.from_tensors(run_file.read(tmp_path).tensors).steps) == 6
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)


def test_the_file_holds_weights_averages_count_and_all_losses(cut, through):
    saved = run_file.read(cut.out)
    trained = _weights(through)
    averages = {name for name in saved.tensors if name.startswith("optimizer.")}
    assert {name: t.shape for name, t in saved.tensors.items() if name.startswith("model.")} == {
        name: t.shape for name, t in trained.items() if name.startswith("model.")
    }
    assert {"optimizer.adamw.0.exp_avg", "optimizer.adamw.1.exp_avg_sq", "optimizer.muon.0.momentum"} <= averages
    assert saved.tensors["optimizer.step_count"].item() == 7
    losses = Losses.from_tensors(saved.tensors)
    with (through / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [step.loss for step in losses.steps] == [float(row["train_loss"]) for row in rows[1:8]]
    assert losses.validation == [(i, float(rows[i]["validation_loss"])) for i in (0, 5)]
    assert {t.dtype for name, t in saved.tensors.items() if name.startswith("model.")} == {torch.float32}


def test_the_rows_of_losses_csv_are_neither_doubled_nor_lost_whatever_stood_there(cut, through):
    (cut.out / "losses.csv").write_text("step\n0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n")
    train.run(replace(cut, resume=True))
    assert (cut.out / "losses.csv").read_bytes() == (through / "losses.csv").read_bytes()


def test_a_finished_run_leaves_no_state_behind(through):
    assert sorted(path.name for path in through.iterdir()) == ["checkpoint", "losses.csv", "losses.png"]


def test_a_run_that_ends_before_its_checkpoint_is_written_needs_no_step_to_be_finished(
    tmp_path, tiny, through, monkeypatch
):
    config = replace(tiny, out=tmp_path)

    def no_room(*_):
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("llama.model.checkpoint.save", no_room)
        with pytest.raises(OSError, match="no room"):
            train.run(config)
    monkeypatch.setattr(Trainer, "step", None)
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)
    assert not (tmp_path / run_file.FILE).exists()


# What is refused.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": 32}, "--hidden-size is 32, but the run in {out} was begun with 16"),
        ({"steps": 13}, "--steps is 13, but the run in {out} was begun with 12"),
        ({"seed": 1}, "--seed is 1, but the run in {out} was begun with 0"),
        ({"dropout": 0.0}, "--dropout is 0.0, but the run in {out} was begun with 0.1"),
        ({"dtype": "bfloat16"}, "--dtype is bfloat16, but the run in {out} was begun with float32"),
        ({"fractions": (0.7, 0.2, 0.1)}, "--fractions is 0.7 0.2 0.1, but the run in {out} was begun with 0.8 0.1 0.1"),
    ],
)
def test_other_flags_than_the_run_was_begun_with_are_refused_by_name_and_values(cut, capsys, change, sentence):
    _refused(replace(cut, resume=True, **change), capsys, sentence.format(out=cut.out))


def test_a_run_from_before_there_was_a_flag_was_begun_with_its_default(cut, through, capsys, monkeypatch):
    monkeypatch.setattr("llama.training.preparation.check_compiler", lambda device: None)
    config = run_file.read(cut.out).config
    _rewrite(cut, {"config": json.dumps({name: value for name, value in config.items() if name != "compile"})})
    _refused(replace(cut, resume=True, compile=True), capsys, "--compile is True, but the run in")
    train.run(replace(cut, resume=True))
    _assert_same_run(cut.out, through)


def test_another_text_is_refused_and_the_same_under_another_name_is_not(cut, tmp_path, through, capsys):
    other, moved = tmp_path / "other.txt", tmp_path / "moved.txt"
    other.write_text(TEXT.replace("suffer", "soffer"))
    moved.write_text(TEXT)
    _refused(replace(cut, resume=True, corpus=str(other)), capsys, f"the text of --corpus {other} has SHA-256 ")
    assert main(command(replace(cut, resume=True, corpus=str(moved)))) == 0
    _assert_same_run(cut.out, through)


def test_where_there_is_no_run_nothing_is_resumed(tmp_path, tiny, capsys):
    _refused(
        replace(tiny, out=tmp_path, resume=True),
        capsys,
        f"{tmp_path} has no run.safetensors to resume; leave out --resume to begin a run",
    )


def test_a_finished_run_is_not_resumed(tiny, through, capsys):
    _refused(
        replace(tiny, out=through, resume=True),
        capsys,
        f"{through} holds a finished run and nothing to resume; leave out --resume to begin a run",
    )


def test_an_unfinished_run_is_not_written_over(cut, capsys):
    _refused(
        cut, capsys, f"{cut.out / run_file.FILE} is an unfinished run; go on with --resume, delete it, or begin another"
    )


# Files that are damaged, or something else.


def _rewrite(config, metadata=None, **tensors):
    """Change what the file says, and let its digest be right: as somebody would who means it."""
    path = config.out / run_file.FILE
    with safe_open(path, framework="pt") as file:
        said = file.metadata() | (metadata or {})
    held = safetensors.torch.load(path.read_bytes()) | tensors
    held = {name: tensor for name, tensor in held.items() if tensor is not None}
    del said["sha256"]
    said = {name: value for name, value in said.items() if value is not None}
    safetensors.torch.save_file(held, path, said | {"sha256": run_file._digest(said, held)})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        (NORM, None, "'model.norm.weight' should be [16] float32 and is absent"),
        (NORM, torch.zeros(17), "'model.norm.weight' should be [16] float32 and is [17] float32"),
        (NORM, torch.zeros(16).double(), "'model.norm.weight' should be [16] float32 and is [16] float64"),
        (NORM, torch.full((16,), math.nan), "model.norm.weight[0] is nan, weights must be finite"),
        ("optimizer.adamw.0.exp_avg", None, "'optimizer.adamw.0.exp_avg' should be "),
        ("optimizer.muon.1.momentum", torch.zeros(2), "'optimizer.muon.1.momentum' should be "),
        ("optimizer.step_count", None, "'optimizer.step_count' should be [] int64 and is absent"),
        ("optimizer.step_count", torch.tensor(6), "'losses.steps' should be [6, 3] float64 and is [7, 3] float64"),
        ("optimizer.step_count", torch.tensor(-1), "'optimizer.step_count' must lie in 0..12, got -1"),
        ("optimizer.step_count", torch.tensor(2**62), f"'optimizer.step_count' must lie in 0..12, got {2**62}"),
        ("optimizer.step_count", torch.tensor([7.0]), "'optimizer.step_count' should be [] int64 and is [1] float32"),
        ("optimizer.step_count", torch.tensor(math.nan), "'optimizer.step_count' should be [] int64 and is [] float32"),
        ("losses.steps", None, "'losses.steps' should be [7, 3] float64 and is absent"),
        ("losses.validation", torch.zeros(0, 2).double(), "'losses.validation' should be [1, 2] float64 and is [0, 2]"),
        ("losses.validation", torch.tensor(1.0), "'losses.validation' should be [1, 2] float64 and is [] float32"),
        ("evil\nname", torch.zeros(1), "'evil\\nname' should be absent and is [1] float32"),
    ],
)
def test_tensors_that_no_such_run_has_are_refused_by_name(cut, capsys, name, tensor, sentence):
    _rewrite(cut, **{name: tensor})
    beginning = "llama: checkpoint: " if "finite" in sentence else "llama: train: "
    _refused(replace(cut, resume=True), capsys, sentence, beginning)


def test_a_run_that_claims_more_steps_than_there_are_is_refused(cut, capsys):
    more = {"losses.steps": torch.ones(13, 3).double(), "optimizer.step_count": torch.tensor(13)}
    _rewrite(cut, **more)
    _refused(replace(cut, resume=True), capsys, "'optimizer.step_count' must lie in 0..12, got 13")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"format": "pt"}, "is not a run: its format is 'pt'"),
        ({"version": "2"}, "is of version '2', only 1 can be read"),
        ({"config": "{"}, "its config is not JSON (Expecting property name"),
        ({"config": "[" * 100_000}, "its config is not JSON ("),
        ({"config": "[1]"}, "its config must be an object, got list"),
        ({"config": "{}"}, "--hidden-size is 16, but the run in "),
        ({"config": '{"preset": "evil\\nname"}'}, "was begun with 'evil\\nname'"),
        ({"config": json.dumps({"preset": 999 * "x"})}, f"was begun with {99 * 'x'}\n"),
        ({"corpus": None}, "the text of --corpus "),
    ],
)
def test_metadata_that_are_not_those_of_a_run_are_refused(cut, capsys, metadata, sentence):
    _rewrite(cut, metadata)
    _refused(replace(cut, resume=True), capsys, sentence)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        (64).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'.ljust(64)
        + bytes(4),
        b"step,learning_rate\n" * 9,
    ],
    ids=["empty", "header of 2^64 bytes", "header beyond the file", "a shape that lies", "something else"],
)
def test_a_file_whose_header_lies_is_refused(cut, capsys, content):
    (cut.out / run_file.FILE).write_bytes(content)
    _refused(replace(cut, resume=True), capsys, f"{cut.out / run_file.FILE} cannot be read (")


def test_a_checkpoint_under_the_name_of_a_run_is_refused(cut, through, capsys):
    (cut.out / run_file.FILE).write_bytes((through / "checkpoint" / "model.safetensors").read_bytes())
    _refused(replace(cut, resume=True), capsys, "is not a run: its format is 'pt'")


def test_a_file_is_refused_wherever_it_is_cut_off(cut):
    path = cut.out / run_file.FILE
    whole = path.read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^train: .* cannot be read \(.*\)$"):
            run_file.read(cut.out)


def test_a_bit_that_has_changed_is_found_wherever_it_is(cut):
    path = cut.out / run_file.FILE
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    for at in [*rng.sample(range(8 + header), 100), *rng.sample(range(8 + header, len(whole)), 200)]:
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"^train: .*run.safetensors (cannot be read|is damaged|is not a|is of)"):
            run_file.read(cut.out)


# What goes wrong on the way.


def test_a_loss_that_is_not_a_number_ends_the_run_with_its_step_and_keeps_the_state_before(
    tmp_path, tiny, through, capsys, monkeypatch
):
    config = replace(tiny, out=tmp_path)
    step = Trainer.step

    def spoiled(trainer, number, *more):
        taken = step(trainer, number, *more)
        return taken._replace(loss=math.nan) if number == 7 else taken

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", spoiled)
        assert main(command(config)) == 2
    assert "train: the loss is nan at step 7; try smaller learning rates" in capsys.readouterr().err
    assert len(Losses.from_tensors(run_file.read(tmp_path).tensors).steps) == 7
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, tiny, capsys, monkeypatch):
    step = Trainer.step

    def spoiled(trainer, number, *more):
        taken = step(trainer, number, *more)
        if number == 7:
            trainer.model.state_dict()[NORM][0] = math.inf
        return taken

    monkeypatch.setattr(Trainer, "step", spoiled)
    assert main(command(replace(tiny, out=tmp_path))) == 2
    assert f"train: {NORM} is not finite after 8 steps; try smaller learning rates" in capsys.readouterr().err
    assert run_file.read(tmp_path).tensors["optimizer.step_count"].item() == 7


def test_a_disk_that_is_full_ends_the_run_in_one_sentence_and_leaves_the_earlier_state_whole(cut, through, capsys):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        _refused(replace(cut, resume=True), capsys, f"{cut.out} cannot be written: ", "llama: checkpoint: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train.run(replace(cut, resume=True))
    _assert_same_run(cut.out, through)


def test_a_disk_that_fills_up_later_costs_no_more_than_the_steps_since_the_last_save(cut, through, capsys, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    write = run_file.write

    def fills_up(folder, saved, losses):
        with monkeypatch.context() as patch:
            if len(losses.steps) == 10:
                patch.setattr("safetensors.torch.save_file", no_room)
            write(folder, saved, losses)

    with monkeypatch.context() as patch:
        patch.setattr("llama.training.run_file.write", fills_up)
        assert main(command(replace(cut, resume=True))) == 2
    assert capsys.readouterr().err.endswith(f"checkpoint: {cut.out} cannot be written: No space left on device\n")
    assert run_file.read(cut.out).tensors["optimizer.step_count"].item() == 9
    train.run(replace(cut, resume=True))
    _assert_same_run(cut.out, through)


def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path, tiny, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert main(command(replace(tiny, out=tmp_path / "file" / "out"))) == 2
    assert capsys.readouterr().err == f"llama: {tmp_path / 'file'} is a file, and must be a folder\n"


# Signals.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_be_finished_and_saved_and_says_how_to_go_on(
    tmp_path, tiny, through, capsys, monkeypatch, number, code
):
    out, step = tmp_path / "with a blank", Trainer.step

    def interrupted(trainer, at, *more):
        if at == 6:
            signal.raise_signal(number)
        return step(trainer, at, *more)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        assert main(command(replace(tiny, out=out, save_every=100))) == code
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("llama: stopped after step 7 of 12, which is saved; to go on: python -m llama train ")
    assert run_file.read(out).tensors["optimizer.step_count"].item() == 7
    typed = shlex.split(said.split("python -m llama ")[1])
    assert main(typed) == 0
    _assert_same_run(out, through)


def test_the_command_to_go_on_names_what_differs_from_the_preset_and_no_more():
    config = replace(PRESETS["shakespeare"], steps=7, out=Path("out/x"), fractions=(0.9, 0.1, 0.0))
    assert train._command(config, ALONE) == (
        f"python -m llama train --preset shakespeare --fractions 0.9 0.1 0.0 --steps 7 --out {Path('out/x')} --resume"
    )


def test_ctrl_c_twice_does_not_wait_for_the_step(tmp_path, tiny, monkeypatch, capsys):
    def twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second is not noted, it interrupts")

    monkeypatch.setattr(Trainer, "step", twice)
    config = replace(tiny, out=tmp_path)
    assert main(command(config)) == 130
    sentence = f"llama: interrupted; to go on from what is saved: {train._command(config, ALONE)}\n"
    assert capsys.readouterr().err.endswith(sentence)


def test_ctrl_c_after_the_last_step_says_how_to_go_on_too(tmp_path, tiny, through, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    config = replace(tiny, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("llama.model.checkpoint.save", interrupted)
        assert main(command(config)) == 130
    assert train._command(config, ALONE) in capsys.readouterr().err
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)


def test_ctrl_c_before_anything_is_saved_says_no_more_than_that(tmp_path, tiny, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llama.training.evaluation.loss", interrupted)
    assert main(command(replace(tiny, out=tmp_path / "out"))) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "llama: interrupted"
    assert not (tmp_path / "out").exists()


def test_a_word_that_looks_like_a_flag_is_typed_behind_an_equals_sign():
    assert flags({"out": "-o"}, {"out": "out"}) == ["--out=-o"]


# Who has the folder, and what is left in it.


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_another_process_trains_is_refused(tmp_path, tiny, through, capsys, monkeypatch, resume):
    config = replace(tiny, out=tmp_path / "out")
    if resume:
        _cut(config, 5, monkeypatch)
    with run_file.alone(config.out):
        sentence = f"another process trains in {config.out}; wait, or give another --out"
        _refused(replace(config, resume=resume), capsys, sentence)
    train.run(replace(config, resume=resume))
    _assert_same_run(config.out, through)
    assert not (config.out / ".lock").exists()


def test_what_was_half_written_when_a_run_was_killed_is_gone_when_it_goes_on(tmp_path, tiny, monkeypatch):
    config = replace(tiny, out=tmp_path)
    _cut(config, 5, monkeypatch)
    (tmp_path / "checkpoint").mkdir()
    halves = [tmp_path / ".run.safetensors.77.partial", tmp_path / "checkpoint" / ".model.safetensors.77.partial"]
    for half in halves:
        half.touch()
    train.run(replace(config, resume=True))
    assert not any(half.exists() for half in halves)


def test_a_run_that_nobody_can_read_of_is_finished(tmp_path, tiny, capsys, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr("llama.training.command._report", closed)
    assert main(command(replace(tiny, out=tmp_path))) == 141
    assert capsys.readouterr().err.count("llama: ") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "losses.csv", "losses.png"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
            "the memory does not",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "the memory does not suffice; smaller sizes or fewer samples"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 bytes)."), "the memory does not suffice"),
        (MemoryError(), "the memory does not suffice"),
        (ValueError("a layer has failed"), "a layer has failed"),
    ],
    ids=["CPU", "CUDA", "MPS", "Python", "another"],
)
def test_of_a_run_that_fails_before_its_first_step_nothing_is_left(
    tmp_path, tiny, capsys, monkeypatch, error, sentence
):
    def failing(*_):
        raise error

    monkeypatch.setattr(Trainer, "step", failing)
    assert main(command(replace(tiny, out=tmp_path / "out"))) == 2
    assert f"llama: {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [0, 5])
def test_of_a_resumed_run_that_fails_everything_is_kept(tmp_path, tiny, through, monkeypatch, number):
    config = replace(tiny, out=tmp_path)
    _cut(config, number, monkeypatch)

    def failing(*_):
        raise ValueError("a layer has failed")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", failing)
        with pytest.raises(ValueError, match="a layer has failed"):
            train.run(replace(config, resume=True))
    assert run_file.read(tmp_path).tensors["optimizer.step_count"].item() == number
    train.run(replace(config, resume=True))
    _assert_same_run(tmp_path, through)


def test_an_error_that_is_not_about_memory_is_not_called_one(tmp_path, tiny, monkeypatch):
    def failing(*_):
        raise RuntimeError("a kernel has failed")

    monkeypatch.setattr(Trainer, "step", failing)
    with pytest.raises(RuntimeError, match="a kernel has failed"):
        main(command(replace(tiny, out=tmp_path)))


def test_a_signal_that_the_shell_has_it_ignore_is_ignored(tmp_path, tiny, through, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    step = Trainer.step

    def with_a_signal(trainer, number, *more):
        signal.raise_signal(signal.SIGINT)
        return step(trainer, number, *more)

    monkeypatch.setattr(Trainer, "step", with_a_signal)
    train.run(replace(tiny, out=tmp_path))
    _assert_same_run(tmp_path, through)


def test_a_run_that_goes_on_where_another_dtype_is_fast_is_refused(tmp_path, tiny, capsys, monkeypatch):
    config = replace(tiny, dtype="auto", out=tmp_path)
    monkeypatch.setattr("llama.training.options.multiplies_bfloat16", lambda device: False)
    _cut(config, 1, monkeypatch)
    monkeypatch.setattr("llama.training.options.multiplies_bfloat16", lambda device: True)
    sentence = f"--dtype is bfloat16, but the run in {tmp_path} was begun with float32"
    _refused(replace(config, resume=True), capsys, sentence)


# The kill test.

# Imports once and forks for each life, in a process of its own: one that has threads should not fork.
DRIVER = """
import json, os, random, signal, sys
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
import tyro

from llama.training import command as train
from llama.training import run_file
from llama.training.options import Train
from llama.training.trainer import Trainer


def half_a_file(tensors, path, metadata):
    path.write_bytes(safetensors.torch.save(tensors, metadata)[:4000])


# Where a life can end: between two steps, half-way through the file, before its bytes are on the disk, between these
# and each of the two names, and before what is left over is removed.
PLACES = {
    "step": (Trainer, "step", None),
    "write": (safetensors.torch, "save_file", half_a_file),
    "fsync": (os, "fsync", None),
    "replace": (Path, "replace", None),
    "unlink": (Path, "unlink", None),
}


# Train in a process that kills itself when it comes to the place for the count-th time; how it has ended.
def live(config, place=None, count=0):
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    left = [count]

    def dying(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if before is not None:
                before(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    try:
        if place:
            where, name, before = PLACES[place]
            function = getattr(where, name)
            setattr(where, name, dying)
        train.run(config)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


torch.set_num_threads(1)
train._report = train.draw_losses = train._say = lambda *_: None
config = tyro.cli(Train)
through, killed = config.out / "through", config.out / "killed"
assert live(replace(config, out=through)) == 0
rng, moments = random.Random(0), []
for place in [*PLACES] * 4:
    config = replace(config, out=killed, resume=(killed / run_file.FILE).exists())
    count = rng.randint(1, 9)
    ended = live(config, place, count)
    saved = int(run_file.read(killed).tensors["optimizer.step_count"]) if (killed / run_file.FILE).exists() else None
    moments.append((place, count, ended, saved))
assert live(replace(config, resume=True)) == 0
print(json.dumps(moments))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork to start many processes quickly")
def test_a_run_that_is_killed_at_twenty_moments_ends_with_the_same_losses_and_weights(tmp_path, tiny):
    config = replace(tiny, steps=60, evaluate_every=25, out=tmp_path)
    # Not preloaded: what so many killed processes leave of multiprocessing's would be reported at the end of this run.
    done = programs.run_cold("-c", DRIVER, *command(config)[1:])
    assert done.returncode == 0, done.stderr
    moments = json.loads(done.stdout)
    print(moments)
    assert [ended for *_, ended, _ in moments] == [-signal.SIGKILL] * 20
    saved = [steps for *_, steps in moments if steps is not None]
    assert saved == sorted(saved)  # no life undoes what another has done
    assert 0 < saved[-1] < config.steps
    _assert_same_run(tmp_path / "killed", tmp_path / "through")
    # Nor is anything left that was half written.
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["checkpoint", "losses.csv"]
