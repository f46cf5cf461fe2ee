"""`python -m llama`: train and generate. Wrong input is in test_wrong_input.py."""

import csv
import json
import shutil

import pytest
import torch
import tyro

from llama.__main__ import main
from llama.model import checkpoint
from llama.text.tokenizer import CharTokenizer
from llama.training import command as train
from llama.training import evaluation
from llama.training.options import PRESETS, Train
from tests.session.running import programs

TINY = ["--hidden-size", "24", "--num-hidden-layers", "1", "--window", "8", "--steps", "12", "--evaluate-every", "5"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("to be or not to be, that is the question\n" * 40)
    return path


@pytest.fixture(scope="module")
def run_once(tmp_path_factory, text):
    out = tmp_path_factory.mktemp("trained")
    assert main(["train", "--corpus", str(text), "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def trained(tmp_path, run_once):
    """What a run left, to be read or broken."""
    return shutil.copytree(run_once, tmp_path / "out")


def test_training_reports_the_three_losses_and_a_sample_and_writes_what_it_says(tmp_path, text, capsys):
    trained = tmp_path / "out"
    assert main(["train", "--corpus", str(text), "--out", str(trained), *TINY]) == 0
    report = capsys.readouterr().out
    for word in ("train", "validation", "test", "A sample", "parameters"):
        assert word in report
    assert (trained / "losses.png").read_bytes().startswith(b"\x89PNG")
    with (trained / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(13))
    assert [int(row["step"]) for row in rows if row["validation_loss"]] == [0, 5, 10, 12]
    assert float(rows[-1]["validation_loss"]) < float(rows[0]["validation_loss"])


def test_the_same_seed_trains_the_same_model(tmp_path, text):
    for name in ("a", "b"):
        main(["train", "--corpus", str(text), "--out", str(tmp_path / name), *TINY])
    a, b = (checkpoint.load(tmp_path / name / "checkpoint")[0].state_dict() for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_generating_continues_the_prompt_and_the_same_seed_gives_the_same_text(trained, capsys):
    texts = []
    for _ in range(2):
        capsys.readouterr()
        arguments = ["--prompt", "to be", "--max-new-tokens", "20", "--seed", "3"]
        assert main(["generate", str(trained / "checkpoint"), *arguments]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("to be")
    assert len(texts[0]) == len("to be") + 20 + 1


def test_a_learners_layers_can_train(tmp_path, text, capsys):
    (tmp_path / "mine.py").write_text("def silu(x):\n    return x * x.sigmoid()\n")
    arguments = ["--impl", str(tmp_path / "mine.py"), "--corpus", str(text), "--out", str(tmp_path / "out")]
    assert main(["train", *arguments, *TINY]) == 0
    assert "layers of mine (from vectorized: softmax" in capsys.readouterr().out


def test_a_text_with_known_entropy_is_reported_with_its_floor(tmp_path, capsys):
    small = ["--fractions", "0.998", "0.001", "0.001"]
    assert main(["train", "--corpus", "grammar", "--out", str(tmp_path), *small, *TINY]) == 0
    assert "above the entropy of the text" in capsys.readouterr().out


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(trained):
    path = trained / "checkpoint" / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 24', '"hidden_size": 48'))
    with pytest.raises(ValueError, match=r"does not fit its config.json: .* should be \[.*\] and is \[.*\]"):
        checkpoint.load(trained / "checkpoint")


def test_a_truncated_checkpoint_is_refused(trained):
    path = trained / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        checkpoint.load(trained / "checkpoint")


def test_python_m_llama_is_that_command_line():
    run = programs.run_cold("-m", "llama", "generate", "--top-q", "1")
    assert run.returncode == 2
    assert "--top-q" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_schedule_is_the_one_that_was_asked_for(trained):
    with (trained / "losses.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    # Twelve steps are fewer than the warm-up of a hundred, so the whole run rises in a straight line.
    peak = PRESETS["quick"].peak_lr
    assert rates == pytest.approx([peak * (step + 1) / 12 for step in range(12)])


def test_a_preset_gives_the_defaults_and_a_flag_beats_it(tmp_path, text, capsys):
    assert main(["train", "--preset", "shakespeare", "--corpus", str(text), "--out", str(tmp_path), *TINY]) == 0
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    preset = PRESETS["shakespeare"]
    assert config["num_attention_heads"] == preset.num_attention_heads != PRESETS["quick"].num_attention_heads
    assert config["hidden_size"] == 24


def test_a_profile_shows_the_parts_of_a_step_and_writes_nothing(tmp_path, text, capsys):
    assert main(["train", "--profile", "--corpus", str(text), "--out", str(tmp_path / "out"), *TINY]) == 0
    shown = capsys.readouterr().out
    for part in ("data", "forward", "backward", "optimizer", "aten::"):
        assert part in shown
    assert not (tmp_path / "out").exists()


def test_each_loss_is_that_of_its_own_split(tmp_path):
    # Training text alternates, validation repeats one letter, test the other: three very different losses.
    path = tmp_path / "text.txt"
    path.write_text("ab" * 400 + "a" * 100 + "b" * 100)
    small = ["--hidden-size", "16", "--num-hidden-layers", "1", "--window", "8", "--steps", "60"]
    config = tyro.cli(Train, args=["--corpus", str(path), "--out", str(tmp_path / "out"), *small])
    result = train.run(config)
    ids = CharTokenizer("ab").encode(path.read_text())
    losses = (result.train_loss, result.validation_loss, result.test_loss)
    splits = (ids[:100], ids[800:900], ids[900:])
    assert losses == pytest.approx(tuple(evaluation.loss(result.model, split, 8) for split in splits))
    assert len({round(loss, 3) for loss in losses}) == 3
    assert result.model.compute_dtype is None  # what is written is what was measured
    assert not result.model.training
