"""Failures of one cause are told once."""

import re
from types import SimpleNamespace

import pytest

from tests.session.showing.causes import grouped, pytest_terminal_summary

WRONG = """
def silu(x):
    return x * (2 * x).sigmoid()

def softmax(x):
    return x.exp() / x.exp().sum()
"""


def _report(test, sentence, layer="rope", bugs=()):
    nodeid = f"tests/unit/test_{layer}.py::test_{test}[mine]"
    return SimpleNamespace(nodeid=nodeid, layer=("mine", layer), sentence=sentence, bugs=list(bugs), longrepr=sentence)


@pytest.mark.suite(
    {"mine.py": WRONG},
    "--impl",
    "{folder}/mine.py",
    "tests/unit/model/test_silu.py",
    "tests/unit/model/test_softmax.py",
)
def test_each_cause_is_shown_once_and_every_failure_is_counted(run):
    failures = int(re.search(r"(\d+) failed", run.stdout)[1])
    assert "more tests for the same reason: " in run.stdout
    assert 2 <= run.stdout.count("FAILED tests/") < failures


def test_one_cause_is_one_sentence_but_for_its_numbers_and_places():
    one = _report("one", "out[0, 0] is 0.25 but should be 0.5")
    groups = grouped(
        [one, _report("two", "out[3] is -1e-05 but should be 7"), _report("two", "out is 1 but should be 2")]
    )
    assert groups == [one]
    assert one.longrepr.endswith("\n... and 2 more tests for the same reason: two (2)")


@pytest.mark.parametrize(
    "other",
    [
        _report("two", "out is 1 but should be 2", layer="silu"),
        _report("two", "out is nan but should be 2"),
        _report("two", "raised TypeError (mine.py, line 3)"),
        _report("two", "raised TypeError (mine.py, line 4)"),
        _report("two", "out is 1 but should be 2", bugs=["negative_angle"]),
    ],
)
def test_other_layers_sentences_lines_and_diagnoses_are_other_causes(other):
    reports = [
        _report("one", "out is 1 but should be 2"),
        other,
        _report("three", "raised TypeError (mine.py, line 5)"),
    ]
    assert grouped(reports) == reports


def test_one_diagnosis_is_one_cause_whatever_the_tests_say():
    first = _report("one", "out is 1 but should be 2", bugs=["negative_angle"])
    assert grouped([first, _report("two", "it is not so", bugs=["negative_angle"])]) == [first]


def test_a_failure_of_no_layer_stands_alone():
    reports = [SimpleNamespace(nodeid="a", longrepr="x"), SimpleNamespace(nodeid="b", longrepr="x")]
    assert grouped(reports) == reports


@pytest.mark.parametrize(("verbosity", "shown"), [(0, 1), (-1, 1), (1, 2)])
def test_with_v_all_are_shown_and_they_are_counted_in_any_case(verbosity, shown):
    failed = [_report("one", "out is 1 but should be 2"), _report("two", "out is 3 but should be 4")]
    reporter = SimpleNamespace(stats={"failed": failed}, config=SimpleNamespace(get_verbosity=lambda: verbosity))
    hook = pytest_terminal_summary(reporter)
    next(hook)
    assert len(reporter.stats["failed"]) == shown
    assert list(hook) == []
    assert reporter.stats["failed"] == failed
