"""One run in two processes, as torchrun starts them: the same batches, the same losses, one who speaks and writes."""

import csv
import sys
from dataclasses import replace

import pytest
import torch

from llama.__main__ import main
from llama.model import checkpoint
from llama.model.config import LlamaConfig
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import command as train
from llama.training import distributed, run_file
from llama.training.losses import Losses
from llama.training.trainer import Trainer
from tests.integration.training.small_runs import command, small_run
from tests.judge.assertions import assert_close
from tests.judge.tolerances import LOSS
from tests.session.running import programs

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="needs gloo, and signals as POSIX has them"
)

# A program that is `python -m llama` but that something happens to in one step of the second process.
PROGRAM = """
import os, signal, sys
from llama.__main__ import main
from llama.training.trainer import Trainer

step = Trainer.step

def until(trainer, number, *more):
    if (number, trainer.group.rank) == (5, 1):
        os.kill(os.getpid(), signal.{name})
    return step(trainer, number, *more)

Trainer.step = until
sys.exit(main())
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """In float32: rounding to bfloat16 makes a large difference of one in the last bit."""
    folder = tmp_path_factory.mktemp("corpus")
    return small_run(folder, batch_size=8, steps=10, evaluate_every=4, save_every=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny):
    """The folder of the same run in one process."""
    out = tmp_path_factory.mktemp("alone")
    train.run(replace(tiny, out=out))
    return out


def _assert_same_losses(out, other):
    tables = []
    for folder in (out, other):
        with (folder / "losses.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == len(tables[1])
    for name in ("train_loss", "validation_loss"):
        losses, others = ([(row["step"], float(row[name])) for row in table if row[name]] for table in tables)
        assert [step for step, _ in losses] == [step for step, _ in others]
        assert max(abs(loss - same) for (_, loss), (_, same) in zip(losses, others, strict=True)) <= LOSS


def _interrupted(tmp_path, config, name):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(name=name))
    done = programs.run(*TORCHRUN, str(program), *command(config))
    assert done.returncode != 0
    return done.stderr


def test_two_processes_have_the_losses_of_one_and_one_of_them_speaks_and_writes(tmp_path, tiny, alone):
    config = replace(tiny, out=tmp_path / "out", accumulate=2)
    done = programs.run_cold(*TORCHRUN, "-m", "llama", *command(config))
    assert done.returncode == 0, done.stderr
    for said in ("Corpus text.txt", "A sample", "Written: "):
        assert done.stdout.count(said) == 1
    _assert_same_losses(config.out, alone)
    assert sorted(path.name for path in config.out.iterdir()) == ["checkpoint", "losses.csv", "losses.png"]
    weights, others = (checkpoint.load(folder / "checkpoint")[0].state_dict() for folder in (config.out, alone))
    for name, tensor in weights.items():
        assert_close(tensor, others[name], name, within=LOSS)


def test_when_one_process_is_killed_all_end_and_one_process_can_go_on(tmp_path, tiny, alone):
    config = replace(tiny, out=tmp_path / "out")
    _interrupted(tmp_path, config, "SIGKILL")
    assert run_file.read(config.out).tensors["optimizer.step_count"].item() == 4
    train.run(replace(config, resume=True))
    _assert_same_losses(config.out, alone)


def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path, tiny, alone):
    config = replace(tiny, out=tmp_path / "out", save_every=100)
    said = _interrupted(tmp_path, config, "SIGTERM")
    assert said.count("llama: stopped after step 6 of 10, which is saved; ") == 1
    assert "to go on: torchrun --nproc-per-node 2 -m llama train --corpus " in said
    assert run_file.read(config.out).tensors["optimizer.step_count"].item() == 6
    train.run(replace(config, resume=True))
    _assert_same_losses(config.out, alone)


@pytest.mark.parametrize(
    ("said", "raised", "sentence"),
    [
        (
            "[gloo/transport/tcp/pair.cc:538] Connection closed by peer",
            ConnectionError,
            "train: process 1 of 2 has lost",
        ),
        ("The size of tensor a (3) must match", RuntimeError, "The size of tensor a"),
    ],
)
def test_what_torch_says_of_a_lost_process_becomes_a_sentence_and_nothing_else_does(
    monkeypatch, said, raised, sentence
):
    for name in ("init_process_group", "barrier", "destroy_process_group"):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda *_, **__: None)
    with (
        pytest.raises(raised, match=f"^{sentence}"),
        distributed.joined(distributed.Group(1, 2, 1, 2), torch.device("cpu")),
    ):
        raise RuntimeError(said)


@pytest.fixture
def second_of_two(monkeypatch):
    """What torchrun says to the second of two processes."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 7}, "accumulate times the number of processes must divide batch_size, got 1 · 2 and 7"),
        ({"accumulate": 8}, "accumulate times the number of processes must divide batch_size, got 8 · 2 and 8"),
        ({"profile": True}, "--profile is for one process, got 2"),
    ],
)
def test_what_cannot_be_shared_out_is_one_sentence(
    second_of_two, tmp_path, tiny, capsys, monkeypatch, change, sentence
):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)  # while the first speaks, and torchrun ends this one
    assert main(command(replace(tiny, out=tmp_path / "out", **change))) == 2
    assert capsys.readouterr().err == f"llama: train: {sentence}\n"
    assert len(slept) == 1
    assert not (tmp_path / "out").exists()


def test_of_several_processes_the_first_speaks_at_once(second_of_two, tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("time.sleep", None)
    assert main(command(replace(tiny, out=tmp_path / "out", batch_size=7))) == 2
    assert "got 1 · 2 and 7" in capsys.readouterr().err


def test_each_process_has_a_gpu_of_its_own_and_one_process_the_one_that_was_named(second_of_two):
    assert distributed.group().device("cuda") == "cuda:1"
    assert distributed.group().device("cpu") == "cpu"
    assert distributed.ALONE.device("cuda") == "cuda"


def test_a_single_process_sends_nothing_and_has_nothing_around_its_model():
    model, value = torch.nn.Linear(2, 2), torch.tensor(3.0)
    assert distributed.ALONE.parallel(model) is model
    assert distributed.ALONE.mean(value) is value
    assert distributed.ALONE.largest(7, torch.device("cpu")) == 7
    with distributed.joined(distributed.ALONE, torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def test_each_row_of_a_batch_goes_through_exactly_one_process_and_part(tiny, monkeypatch):
    seen = []

    class Counting(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, rows):
            seen.append(rows)
            return self.model(rows)

    ids = torch.arange(100) % 23
    for rank in range(2):
        windows = Windows(ids, tiny.window)
        model = Llama(LlamaConfig(vocab_size=23, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
        with monkeypatch.context() as patch:
            # As in a group of two, but for what is sent.
            patch.setattr(distributed.Group, "parallel", lambda _, model: Counting(model))
            patch.setattr(distributed.Group, "mean", lambda _, value: value)
            trainer = Trainer(replace(tiny, accumulate=2), model, windows, distributed.Group(rank, 2, rank, 2))
            trainer.step(3)
        batch = windows.batch(tiny.batch_size, tiny.seed, 3)[0]
    assert sorted(torch.cat(seen).tolist()) == sorted(batch.tolist())


def test_only_the_first_process_measures_and_writes(tmp_path, tiny, monkeypatch):
    ids = torch.arange(100) % 23
    model = Llama(LlamaConfig(vocab_size=23, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    # As in a group of two, but for what is sent.
    monkeypatch.setattr(distributed.Group, "parallel", lambda _, model: model)
    monkeypatch.setattr(distributed.Group, "mean", lambda _, value: value)
    monkeypatch.setattr(distributed.Group, "largest", lambda _, number, device: number)
    for rank, written in ((1, False), (0, True)):
        config = replace(tiny, out=tmp_path / str(rank))
        windows, losses, begun = Windows(ids, tiny.window), Losses(), run_file.Saved({}, "", {})
        train._fit(Trainer(config, model, windows, distributed.Group(rank, 2, rank, 2)), ids, losses, begun)
        assert len(losses.steps) == tiny.steps
        assert bool(losses.validation) == written
        assert (config.out / run_file.FILE).exists() == written
