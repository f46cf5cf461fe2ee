"""What cannot be a layer is refused in a sentence, and ends nothing; `pytest --cheats` tries all cheats."""

import inspect
import itertools
import os
import sys
import unittest

import hypothesis
import numpy as np
import pytest
import torch

from llama.implementation import Implementation
from tests import cheats
from tests.judge.apart import state
from tests.judge.gradients import vjp
from tests.judge.guards import endings, surroundings
from tests.judge.guards.endings import Refused, hold_the_process
from tests.judge.subject import Mismatch, Subject
from tests.judge.telling import messages


def silu(x):
    return x * x.sigmoid()


def _layer(change, layer="silu"):
    """A layer that computes SiLU and then does something else."""
    return Subject(layer, Implementation("mine", {layer: lambda x: change(silu(x))}))


def _raising(error):
    def change(out):
        raise error

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda out: None, "out must be a tensor, got None: is there a return?"),
        (lambda out: out.numpy(), "out must be a tensor, got ndarray"),
        (lambda out: torch.nn.Parameter(out), "out must be a plain tensor, got Parameter"),
        (lambda out: out.to_sparse(), "out must be a dense tensor, got one that is sparse_coo"),
        (lambda out: out.to("meta"), "out must be on cpu, got meta"),
        (lambda out: out + 0j, "out must be real, got complex64"),
        (lambda out: [out, out + 0j], "out[1] must be real, got complex64"),
        (lambda out: out.requires_grad_(), "out asks for a gradient, but nothing leads from it to the arguments"),
    ],
)
def test_a_result_that_is_no_plain_tensor_is_refused(change, sentence):
    with pytest.raises(Mismatch) as refused:
        _layer(change)(torch.ones(3))
    assert sentence in refused.value.sentence


def test_a_view_of_an_argument_is_refused():
    view = Subject("silu", Implementation("mine", {"silu": lambda x: x.T}))
    with pytest.raises(Mismatch, match="out lies in the memory of an argument: return a new tensor"):
        view(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SystemExit(0), "the layer ended the program with sys.exit(0)"),
        (pytest.skip.Exception("no"), "the layer ended its test with pytest.skip"),
        (pytest.xfail.Exception("no"), "the layer ended its test with pytest.xfail"),
        (pytest.exit.Exception("no"), "the layer ended its test with pytest.exit"),
        (unittest.SkipTest("no"), "the layer ended its test with SkipTest"),
        (hypothesis.errors.UnsatisfiedAssumption(), "the layer ended its test with UnsatisfiedAssumption"),
        (KeyboardInterrupt(), "the layer ended its test with KeyboardInterrupt"),
        (GeneratorExit(), "the layer ended its test with GeneratorExit"),
    ],
    ids=lambda of: type(of).__name__,
)
def test_what_would_end_a_test_or_the_program_is_a_failure(error, sentence):
    with pytest.raises(Mismatch) as refused:
        _layer(_raising(error))(torch.ones(3))
    assert refused.value.sentence == sentence


def test_the_end_of_the_process_ends_a_call_alone(monkeypatch):
    # What it replaces is put back after the test.
    monkeypatch.setattr(os, "_exit", os._exit)
    monkeypatch.setattr(sys.modules[os.name], "_exit", os._exit)
    monkeypatch.setattr(endings.signal, "signal", lambda *_: None)
    hold_the_process()
    with pytest.raises(Mismatch, match=r"the layer ended the program with os._exit\(0\)"):
        _layer(lambda out: os._exit(0))(torch.ones(3))


def test_an_error_of_the_layer_is_its_answer():
    with pytest.raises(ValueError, match="too long"):
        _layer(_raising(ValueError("too long")))(torch.ones(3))


def test_an_error_that_cannot_be_printed_has_a_sentence():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert messages._first_line(Silent()) == ""


def test_an_argument_that_is_written_to_behind_torchs_back_is_seen():
    zero = Subject("silu", Implementation("mine", {"silu": lambda x: torch.zeros_like(x.data.zero_())}))
    with pytest.raises(Mismatch, match="an argument was changed"):
        zero(torch.ones(3))


@pytest.mark.parametrize("buffers", [1, 2])
def test_memory_that_a_later_call_writes_to_is_refused(buffers):
    memory = itertools.cycle([torch.empty(3) for _ in range(buffers)])
    layer = _layer(lambda out: next(memory).copy_(out))
    for number in range(buffers):
        layer(torch.full((3,), float(number)))
    with pytest.raises(Mismatch, match="an earlier result has changed: each call needs memory of its own"):
        layer(torch.full((3,), 7.0))


def test_a_result_that_is_written_after_the_call_is_refused():
    layer = _layer(lambda out: out)
    out = layer(torch.ones(3))
    out.data.zero_()
    with pytest.raises(Mismatch, match="the result has changed after it was returned"):
        layer.end()
    Subject.kept = type(Subject.kept)()  # the test itself ends well


@pytest.mark.parametrize("written", ["an argument", "the upstream gradient"])
def test_a_backward_that_writes_to_what_others_need_is_refused(written):
    class Writing(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.x = x.detach()
            return x * x

        @staticmethod
        def backward(context, upstream):
            (context.x if written == "an argument" else upstream).fill_(5.0)
            return 2 * upstream

    x = torch.ones(3, requires_grad=True)
    out = Subject("silu", Implementation("mine", {"silu": Writing.apply}))(x)
    with pytest.raises(Mismatch, match=f"backward has changed {written}, which others still need"):
        vjp(out, [x], torch.ones(3))


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5), 1, 0.5])
def test_a_number_may_be_of_any_kind(number):
    layer = Subject("cosine_schedule", Implementation("mine", {"cosine_schedule": lambda *_: number}))
    assert float(layer(0, 1.0, 0, 1, 0.0)) == number


def test_a_layer_that_raises_while_it_is_diagnosed_has_its_own_sentence():
    def moody(x):
        if any("diagnosis" in frame.filename for frame in inspect.stack(context=0)):
            raise SystemExit(0)
        return x

    layer = Subject("silu", Implementation("mine", {"silu": moody}))
    assert messages.diagnose("silu", layer.fresh()) == []


EXAMPLES = "tests/unit/model/test_silu.py"


@pytest.mark.suite({}, "-q", "--cheats", "-n0", EXAMPLES)
def test_a_cheat_is_refused_by_a_sentence(run):
    """Those that the worked examples refuse already, which are the most."""
    for name, sentence in {
        "borrowed.ours": "the layer calls the project's own silu, and is to compute by itself",
        "borrowed.the_judge": "the layer calls the project's own silu, and is to compute by itself",
        "borrowed.one_layer_above": "the layer calls the project's own swiglu, and is to compute by itself",
        "ended.os_exit_when_imported": "tests.cheats.ended.os_exit_when_imported ended the program with os._exit(0)",
        "pretended.computes_when_looked_at": "out must be a plain tensor, got Later",
        "replaced.torch_equal": "the layer replaced torch.equal, which others use too",
        "replaced.the_grad_mode": "the layer changed torch's grad mode, with which others compute too",
        "replaced.a_file_of_the_tests": "the layer wrote to tests/judge/tolerances.py, which is a file of the suite",
        "replaced.the_examples": "tests.cheats.replaced.the_examples replaced hypothesis.given, which others use too",
    }.items():
        assert f"{name}: {sentence}" in run.stdout, run.stdout


@pytest.mark.suite({"mine.py": "import os\ndef silu(x):\n    os._exit(0)\n"}, "--impl", "{folder}/mine.py", EXAMPLES)
def test_a_layer_that_ends_the_process_is_red(run):
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "the layer ended the program with os._exit(0)" in run.stdout


WARNS = """
import warnings
warnings.warn("slow here")
def silu(x):
    warnings.warn("and here")
    print("and there")
    return x * x.sigmoid()
"""


@pytest.mark.suite({"mine.py": WARNS}, "--impl", "{folder}/mine.py", EXAMPLES)
def test_a_layer_that_warns_and_prints_is_green(run):
    assert run.returncode == pytest.ExitCode.OK, run.stdout


def test_each_cheat_says_what_it_does_and_whom_it_fools():
    assert len(cheats.everything()) >= 25
    for module in cheats.everything():
        text = (cheats.FOLDER.parent.parent / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert text.startswith('"""It ') or text.startswith('"""Its '), module
        assert "\nFools: " in text, module


def test_torchs_compiler_may_raise_the_recursion_limit_and_it_is_put_back(monkeypatch):
    monkeypatch.setattr(surroundings, "_taken", surroundings.Surroundings())
    monkeypatch.setattr(state, "BY_THE_COMPILER", {"Python's recursion limit": sys.getrecursionlimit() + 1000})
    before = sys.getrecursionlimit()
    with surroundings.left_alone("the layer"):
        sys.setrecursionlimit(before + 1000)
    assert sys.getrecursionlimit() == before
    with (
        pytest.raises(Refused, match="the layer changed Python's recursion limit"),
        surroundings.left_alone("the layer"),
    ):
        sys.setrecursionlimit(before + 1001)
    assert sys.getrecursionlimit() == before
