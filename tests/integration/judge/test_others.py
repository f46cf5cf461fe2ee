"""How others judge the zoo: right layers pass, blatant bugs fail, and every fact has a source."""

import re

import pytest

from llama import implementation
from llama.layers import LAYERS
from tests.session.running.nested_runs import run_suite
from tests.session.showing.others import passing
from tests.zoo.others import SUITES, each, plain_rms_norm

FUSED = implementation.load("fused")
# Of each suite a layer whose checks take a moment.
QUICK = {
    "liger": "softmax",
    "vllm": "silu",
    "cs336": "attention",
    "kernelbench": "cross_entropy",
    "opinfo": "linear",
    "flash-attention": "rms_norm",
}


@pytest.mark.parametrize("name", SUITES)
def test_a_right_layer_passes_and_one_of_zeros_does_not(name):
    layer = QUICK[name]
    right = getattr(FUSED, layer)
    functions = {"right": right, "zeros": lambda *args, **kwargs: 0 * right(*args, **kwargs)}
    assert passing(SUITES[name], layer, functions) == ["right"]


@pytest.mark.parametrize("of", SUITES["cs336"].layers)
def test_every_layer_of_a_course_is_judged_and_a_right_one_passes(of):
    assert passing(SUITES["cs336"], of, {"right": getattr(FUSED, of)}) == ["right"]


def test_a_gradient_counts_where_gradients_are_tested_and_nowhere_else():
    functions = {"detached": lambda x, weight: x.detach() @ weight.mT}
    assert passing(SUITES["cs336"], "linear", functions) == ["detached"]
    assert passing(SUITES["opinfo"], "linear", functions) == []


def test_a_dtype_counts_where_it_is_compared():
    functions = {"float64": lambda x: FUSED.silu(x.double())}
    assert passing(SUITES["cs336"], "silu", functions) == ["float64"]
    assert passing(SUITES["opinfo"], "silu", functions) == []


def test_plain_half_precision_passes_where_twice_its_error_is_allowed_and_a_tenth_more_does_not():
    functions = {"plain": plain_rms_norm, "more": lambda *args: 1.1 * plain_rms_norm(*args)}
    assert passing(SUITES["flash-attention"], "rms_norm", functions) == ["plain"]


@pytest.mark.parametrize("name", SUITES)
def test_every_check_names_the_file_it_is_taken_from_at_a_commit(name):
    suite = SUITES[name]
    assert re.fullmatch("[0-9a-f]{40}", suite.commit)
    assert re.fullmatch(r"[\w-]+/[\w-]+", suite.repository)
    assert set(suite.layers) <= set(LAYERS)
    for check in suite.checks:
        assert re.search(r"\w+/\w+\.py", check.source), check
        assert check.sizes
        assert check.within


def test_each_value_occurs_in_a_thinned_list():
    thinned = each(a=(1, 2, 3), b=("x", "y"))
    assert [of["a"] for of in thinned] == [1, 2, 3]
    assert {of["b"] for of in thinned} == {"x", "y"}


def test_rows_are_cut_until_a_tensor_fits_and_long_rows_stay():
    check = next(check for check in SUITES["kernelbench"].checks if check.layer == "softmax")
    (given,) = check.sizes
    case = next(check.cases(seeds=1))
    assert case.n == given["n"]
    assert case.rows < given["rows"]


@pytest.mark.suite({}, "--zoo", "--as", "cs336", "-k", "silu")
def test_the_bugs_that_pass_are_named_and_counted_with_the_sources(run):
    assert run.returncode == 0, run.stdout
    assert "silu: sigmoid_written_out passes" in run.stdout
    assert "silu: gelu_instead" not in run.stdout
    assert "silu: tests/test_model.py: test_silu_matches_pytorch" in run.stdout
    assert re.search(r"of \d+ bugs in layers that it tests, \d+ would pass", run.stdout)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--zoo", "--as", "nobody"), "--as must be one of liger, vllm, cs336"),
        (("--as", "liger"), "--as asks which bugs of the zoo others would let pass: it needs --zoo"),
    ],
)
def test_a_wrong_name_is_one_sentence(tmp_path, arguments, sentence):
    run = run_suite(tmp_path, {}, *arguments)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in run.stdout + run.stderr
