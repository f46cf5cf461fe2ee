"""Kata mode: the stubs, the loop of a learner, and the board."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from llama import implementation
from llama.__main__ import main
from llama.contract.weights import DECODER_LAYER, EMBEDDING, FINAL_NORM, HEAD
from llama.implementation import composed
from llama.kata import board, hint_file
from llama.kata.board import FIRST_LAYERS, Row, unit_test
from llama.kata.stubs import stub
from llama.layers import CHAPTERS, INTERNAL, LAYERS, layer_module, takes_tensors
from tests.judge.assertions import assert_close

ROOT = Path(__file__).parents[3]
WRONG = """
def rms_norm(x, weight, eps=1e-5):
    return x / ((x * x).mean(-1, keepdim=True).sqrt() + eps) * weight
"""


@pytest.fixture
def my_llama(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["kata", "my_llama"]) == 0
    capsys.readouterr()
    return tmp_path / "my_llama"


@pytest.fixture
def every_stub(my_llama):
    """With those of the chapters that the kata does not begin with."""
    assert main(["kata", "my_llama", "--chapter", *CHAPTERS]) == 0
    return my_llama


def test_there_is_a_stub_for_every_layer_and_no_stub_is_written(every_stub):
    loaded = implementation.load(every_stub)
    assert tuple(loaded.layers) == LAYERS
    assert loaded.stubs == set(LAYERS)


def test_it_begins_without_the_chapters_that_have_to_be_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["kata", "mine"])
    assert tuple(implementation.load("mine").layers) == FIRST_LAYERS
    others = ["gradients", "decoding", "tokens"]
    assert not {layer for chapter in others for layer in CHAPTERS[chapter]} & set(FIRST_LAYERS)
    main(["kata", "backwards", "--chapter", "gradients"])
    assert tuple(implementation.load("backwards").layers) == CHAPTERS["gradients"]
    assert board.load(implementation.load("backwards")).chapters == ["gradients"]
    main(["kata", "mine", "--chapter", *others])
    assert board.load(implementation.load("mine")).layers == list(LAYERS)


def test_a_board_with_more_chapters_counts_in_each(every_stub):
    shown = board.load(implementation.load("my_llama"))
    (every_stub / "silu_backward.py").write_text("def silu_backward(grad, x):\n    return grad\n")
    shown = board.load(implementation.load("my_llama"))
    shown.record("silu_backward", Row("done", passed=3))
    lines = str(shown).splitlines()
    headings = [f"{name}: {int(name == 'gradients')} of {len(CHAPTERS[name])} done" for name in CHAPTERS]
    assert [line for line in lines if line in headings] == headings
    assert lines[-1].startswith(f"1 of {len(LAYERS)} layers done. Next: write softmax;")
    assert "decoder_layer_backward   not written" in lines


def test_when_all_gradients_are_done_too_one_trains_by_hand(every_stub, monkeypatch):
    shown = board.load(implementation.load("my_llama"))
    monkeypatch.setattr(board.Board, "state", lambda *_: "done")
    shown.rows = dict.fromkeys(LAYERS, Row("done"))
    assert str(shown).endswith("Next: python -m llama train --impl my_llama --by-hand")


def test_the_stub_of_a_composed_gradient_names_all_layers_beneath_it_and_a_long_result_has_lines_of_its_own():
    text = stub("decoder_layer_backward")
    for beneath in ("rms_norm", "self_attention", "swiglu"):
        assert f"    layers.{beneath}(" in text
        assert f"    layers.{beneath}_backward(" in text
    assert ") -> tuple[\n    Float[" in stub("attention_backward")


@pytest.mark.parametrize("name", LAYERS)
def test_a_stub_has_the_signature_of_its_layer_and_names_the_unit_test(every_stub, name):
    signature = inspect.signature(getattr(implementation.load(every_stub), name))
    ours = getattr(implementation.load("vectorized"), name)
    parameters = [p for p in inspect.signature(ours).parameters.values() if p.name not in INTERNAL]
    assert [(p.name, p.default) for p in signature.parameters.values()] == [(p.name, p.default) for p in parameters]
    text = (every_stub / f"{name}.py").read_text(encoding="utf-8")
    assert f'NotImplementedError("{name} is not written yet: read {unit_test(name)}")' in text
    contract = (layer_module(name).__doc__ or "").partition("\n\n")[0]
    assert contract in text


@pytest.mark.parametrize("name", LAYERS)
def test_a_stub_imports_torch_where_tensors_are_and_holds_the_whole_contract_why_and_what_to_read(name):
    text, known = stub(name), hint_file.read(name)
    assert ("\nimport torch\n" in text) == takes_tensors(name)
    for paragraph in (layer_module(name).__doc__ or "").split("\n\n"):
        assert "`compose`" in paragraph or paragraph.strip() in text
    assert " ".join(known.why.split()) in " ".join(text.split())
    assert all(source in text for source in known.read)


def test_the_stubs_of_the_whole_model_name_every_weight():
    assert all(name in stub("decoder_layer") for name in DECODER_LAYER)
    assert all(name in stub("llama") for name in (EMBEDDING, FINAL_NORM, HEAD))


@pytest.mark.parametrize("name", composed())
def test_the_stub_of_a_composed_layer_shows_how_the_layers_beneath_are_called(name):
    calls = re.findall(r"^    layers\.(\w+)\((.*)\)$", stub(name), flags=re.MULTILINE)
    assert calls
    for layer, arguments in calls:
        given = inspect.signature(eval(f"lambda {arguments}: None")).parameters.values()
        parameters = inspect.signature(getattr(implementation.load("vectorized"), layer)).parameters.values()
        expected = [(p.name, p.default) for p in parameters if p.name not in INTERNAL]
        assert [(p.name, p.default) for p in given] == expected


def test_what_exists_is_never_overwritten(my_llama, capsys):
    (my_llama / "rope.py").write_text("my own work")
    (my_llama / "silu.py").unlink()
    assert main(["kata", "my_llama"]) == 0
    assert (my_llama / "rope.py").read_text() == "my own work"
    assert "wrote silu.py" in capsys.readouterr().out
    assert (my_llama / "silu.py").exists()


def test_a_folder_may_hold_just_the_layers_that_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["kata", "few", "rope", "silu"]) == 0
    assert sorted(path.name for path in (tmp_path / "few").iterdir()) == ["rope.py", "silu.py"]


def test_what_is_not_written_yet_is_taken_from_ours_when_the_whole_is_needed(my_llama):
    (my_llama / "silu.py").write_text("def silu(x):\n    return x * x.sigmoid()\n")
    mine = implementation.load(my_llama)
    assert mine.completed().silu is mine.silu
    assert mine.completed().rope is implementation.load("vectorized").rope


STUBS = {f"my_llama/{layer}.py": stub(layer) for layer in LAYERS}


@pytest.mark.suite(STUBS, "-q", "--impl", "{folder}/my_llama", "tests/unit")
def test_a_stub_costs_one_failing_test_and_the_others_wait(run):
    assert run.returncode == 1
    assert f"{len(LAYERS)} failed" in run.stdout
    assert "passed" not in run.stdout
    for layer in LAYERS:
        assert f"{layer} is not written yet\n" in run.stdout
        assert f"Read: {unit_test(layer)}" in run.stdout


@pytest.mark.suite(STUBS | {"my_llama/rms_norm.py": WRONG}, "--impl", "{folder}/my_llama", "-k", "rms_norm")
def test_a_wrong_layer_says_in_this_order_what_is_wrong_and_why(run):
    assert run.returncode == 1
    told = run.stdout[run.stdout.index("Failed: ") :].splitlines()
    picture = told[2].removeprefix("Picture: ")
    call = "rms_norm(torch.tensor([[1.0, 1.0]]), torch.tensor([1.0, 1.0]), eps=3.0)"
    assert told[0].startswith(
        "Failed: eps is added to the mean square inside the root, tests/unit/model/test_rms_norm.py:"
    )
    assert told[1] == "Read: tests/unit/model/test_rms_norm.py"
    assert told[3:8] == [
        f"out = {call}",
        "out[0, 0] is 0.25 but should be 0.5; all 2 elements are wrong",
        "Your output is exactly what you get when eps is added outside the square root.",
        'Tempting: "the root, plus a little" is how one guards any division against zero.',
        f"rms_norm is not right yet. 0 of {len(LAYERS)} layers are done. A hint: python -m llama hint rms_norm",
    ]
    namespace = {"torch": torch, "rms_norm": implementation.load("vectorized").rms_norm}
    assert_close(eval(call, namespace), torch.tensor([[0.5, 0.5]]))
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
    assert "profile: quick" in run.stdout
    assert told[-1].strip("= ").startswith("1 failed")


@pytest.mark.suite({}, "--collect-only", "-q", "-k", "rope", "tests/property/model/test_silu.py")
def test_a_layer_that_is_asked_for_is_not_looked_for_within_other_words(run):
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout  # "property" has the letters of rope


def test_what_failed_with_strict_is_to_be_tested_so_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["kata", "mine", "softmax"])
    (tmp_path / "mine" / "softmax.py").write_text("def softmax(x):\n    return x\n")
    shown = board.load(implementation.load("mine"))
    for strict in (True, False):
        shown.record("softmax", Row("failing", passed=3, failed=1, strict=strict))
        assert str(shown).endswith("-k softmax --strict") is strict


def test_the_board_shows_what_is_done_failing_changed_and_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["kata", "mine", "softmax", "linear", "silu", "rope"])
    for layer in ("softmax", "linear", "silu"):
        (tmp_path / "mine" / f"{layer}.py").write_text(f"def {layer}(x, weight=None):\n    return x\n")
    shown = board.load(implementation.load("mine"))
    shown.record("softmax", Row("done", passed=40, selected=40))
    shown.record("linear", Row("failing", passed=3, failed=1, selected=30, sentence="out[0] is 1 but should be 2"))
    shown.record("silu", Row("done", passed=20, selected=20))
    shown.save()
    (tmp_path / "mine" / "silu.py").write_text("def silu(x):\n    return 2 * x\n")
    capsys.readouterr()
    assert main(["kata", "--status"]) == 0  # of the folder that was tested last
    lines = capsys.readouterr().out.splitlines()
    states = dict(line.split(maxsplit=1) for line in lines[: len(FIRST_LAYERS)])
    assert tuple(states) == FIRST_LAYERS
    assert states["softmax"] == "done      40 tests"
    assert states["linear"] == "failing   1 of 30 (it stopped there): out[0] is 1 but should be 2"
    assert states["silu"] == "changed since it was last tested"
    assert states["rope"] == states["adamw"] == "not written"
    assert lines[-1] == f"1 of {len(FIRST_LAYERS)} layers done. Next: mend linear, then pytest --impl mine -k linear"
