"""`python -m llama exam` and `report`: what a teacher sets, and what comes of it."""

import csv
import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama import implementation
from llama.__main__ import main
from llama.kata import board
from llama.kata.board import Row
from llama.kata.exam import assignment, class_page, judging, marks
from llama.kata.exam.assignment import Assignment
from llama.kata.exam.judging import How, Judged, Record

RIGHT = """
import math


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2
"""
WRONG = RIGHT.replace("    if step >= total_steps:\n        return min_lr\n", "")
PATCHING = "import math\nmath.cos = lambda x: 0.0\n" + WRONG
WEEK = 'name = "Week 3"\ndeadline = "Friday"\nlayers = ["silu", "rms_norm"]\npoints = { rms_norm = 2.5 }\n'
CLAUSE = "the activation is ReLU."


@pytest.fixture(autouse=True)
def _the_tests_are_found(monkeypatch):
    """From any folder, however the project is installed."""
    monkeypatch.setattr(judging, "INSTALLED", Path(__file__).parents[3])


def _record(submission, layer, state, passed=0, **more):
    worth = more.pop("of_points", 1)
    checks = {"examples": [passed, 10]} if state in ("done", "failing") else {}
    return Record(submission, layer, state, worth * (state == "done"), worth, checks, seconds=1.5, **more)


@pytest.fixture
def a_class():
    """Three submissions: one that is done, one with a known mistake, one that is hostile to whoever shows it."""
    cause = f"Your output is exactly what you get when {CLAUSE}"
    relu = {
        "bugs": [{"name": "relu_instead", "clause": CLAUSE}],
        "cause": cause,
        "sentence": "out is 1 but should be 2",
    }
    hostile = "</script><b>\x00\x1b[31m & ]]> " + "x" * 300
    records = {
        "in/ada": [_record("in/ada", "silu", "done", 10), _record("in/ada", "rope", "done", 10)],
        "in/bea": [_record("in/bea", "silu", "failing", 4, **relu)],
        "in/<i>cy": [
            _record("in/<i>cy", "silu", "failing", 0, sentence=hostile),
            _record("in/<i>cy", "rope", "missing"),
        ],
    }
    dan = Judged("in/dan", [], 0.5, [], problem="it defines no layer")
    return [*(Judged(name, of, 3.0 - i, ["no network"]) for i, (name, of) in enumerate(records.items())), dan]


HOW = How(Assignment("Week <3>", "Friday"), seed=7, time=60, memory=1024, examples=5)


def test_an_assignment_says_which_layers_what_they_are_worth_and_what_is_forbidden(tmp_path):
    path = tmp_path / "week.toml"
    path.write_text(WEEK + 'forbidden = ["fused"]\ntime = 60\nmemory = 512\nexamples = 3\n')
    given = assignment.read(path)
    assert given.layers == ("silu", "rms_norm")
    assert (given.points_of("rms_norm"), given.points_of("silu")) == (2.5, 1)
    assert (given.forbidden, given.time, given.memory, given.examples) == (("fused",), 60, 512, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("layers = [", "is no TOML file"),
        ('layers = ["ropes"]', "there is no layer ropes; did you mean rope?"),
        ("layers = []", "layers must name at least one"),
        ('layers = "rope"', "layers must be a list of layers, got 'rope'"),
        ("points = { rope = -1 }", "points of rope must be a number from 0 on, got -1"),
        ('layers = ["silu"]\npoints = { rope = 1 }', "there are points for rope, which is not among the layers"),
        ("time = 0", "time must be a number of seconds above 0, got 0"),
        ("memory = true", "memory must be a whole number of megabytes above 0, got True"),
        ('forbidden = ["torch.nn.functional.sillu"]', "torch has no torch.nn.functional.sillu; write it as in"),
        ("forbidden = [1]", "forbidden must be a list of texts, got 1"),
        ("layer = 3", "there is no layer; an assignment has name, deadline, layers"),
    ],
)
def test_an_assignment_that_cannot_be_meant_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "week.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"week\.toml") as refused:
        assignment.read(path)
    assert sentence in str(refused.value)


def test_kata_writes_the_stubs_of_an_assignment_and_says_what_they_are_worth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "week.toml").write_text(WEEK + 'forbidden = ["fused"]\n')
    assert main(["kata", "mine", "--assignment", "week.toml"]) == 0
    assert "Forbidden in this assignment: fused." in (tmp_path / "mine" / "silu.py").read_text()
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"silu.py", "rms_norm.py"}
    assert "Week 3, due Friday. Points: silu 1, rms_norm 2.5." in capsys.readouterr().out


def test_the_table_has_a_line_for_each_submission_with_its_marks_and_points(a_class):
    lines = marks.table(a_class).splitlines()
    assert lines[0].split() == ["silu", "rope", "points", "seconds"]
    assert [line.split() for line in lines[1:3]] == [["ada", "done", "done", "2", "3"], ["bea", "40%", "-", "0", "2"]]


def test_the_table_of_one_submission_has_a_line_for_each_layer_with_what_is_wrong(a_class):
    lines = marks.table(a_class[1:2]).splitlines()
    assert lines[1].split(maxsplit=5)[:5] == ["silu", "40%", "4", "of", "10"]
    assert lines[1].endswith(CLAUSE)


def test_submissions_of_the_same_name_are_told_apart():
    judged = [Judged(name, [], 0, []) for name in ("a/mine", "b/mine")]
    assert list(marks.names(judged).values()) == ["a/mine", "b/mine"]


def test_points_are_written_for_a_spreadsheet(a_class):
    rows = list(csv.reader(marks.as_csv(a_class).splitlines()))
    assert rows[0] == ["submission", "silu", "rope", "points"]
    assert rows[1] == ["in/ada", "1", "1", "2"]
    assert rows[4] == ["in/dan", "", "", "0"]


def test_each_layer_is_a_record_with_its_share_of_the_checks(a_class):
    found = json.loads(marks.as_json(a_class))
    assert [(r["layer"], r["done"], r["share"]) for r in found["records"][:3]] == [
        ("silu", True, 1.0),
        ("rope", True, 1.0),
        ("silu", False, 0.4),
    ]
    assert found["problems"] == [{"submission": "in/dan", "problem": "it defines no layer"}]


def test_junit_is_xml_whatever_a_layer_has_said(a_class):
    root = ElementTree.fromstring(marks.as_junit(a_class))
    suites = {suite.get("name"): suite for suite in root}
    assert [suites["in/ada"].get(name) for name in ("tests", "failures", "errors")] == ["2", "0", "0"]
    assert [suites["in/<i>cy"].get(name) for name in ("tests", "failures")] == ["2", "2"]
    assert suites["in/dan"].find("testcase/error").get("message") == "it defines no layer"


def test_the_page_counts_the_mistakes_of_the_class_and_shows_no_markup_of_others(a_class):
    page = class_page.write(a_class, HOW)
    assert "<script" not in page
    assert "<b>\x00" not in page
    assert "Week &lt;3&gt;" in page
    assert [(m.count, m.layer, m.text) for m in class_page.mistakes([r for one in a_class for r in one.records])] == [
        (1, "silu", CLAUSE.rstrip("."))
    ]
    assert len(class_page.hints([r for one in a_class for r in one.records])) == 2
    assert "it defines no layer" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "exam: there is no nowhere"),
        (["link"], "exam: link is a link, which could lead to another's folder; give what it leads to"),
        (["here", "--layers", "ropes"], "exam: there is no layer ropes; did you mean rope?"),
        (["here", "--forbid", "silu"], "exam: --forbid: torch has no silu"),
        (["here", "--time", "0"], "exam: --time must be more than 0, got 0"),
        (["here", "--jobs", "-1"], "exam: --jobs must be more than 0, got -1"),
        (["here", "--seed", "-1"], "exam: --seed must be 0 or more, got -1"),
        (["here", "--assignment", "none.toml"], "none.toml cannot be used"),
    ],
)
def test_an_exam_that_cannot_be_meant_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    assert main(["exam", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"llama: {sentence}")


@pytest.fixture
def told(monkeypatch):
    """In place of the tests: a run that writes this record and ends so. Gives the environments of such runs."""
    environments = []

    def tell(layers, returncode=0):
        def run(command, env, **others):
            environments.append(env)
            record = Path(command[command.index("--record") + 1])
            record.write_text(json.dumps({"layers": layers, "held": []}))
            return SimpleNamespace(returncode=returncode, stdout="of the run")

        monkeypatch.setattr(judging.subprocess, "run", run)
        return environments

    return tell


@pytest.mark.parametrize("counts", [False, True])
def test_a_layer_that_claims_less_has_a_star_and_points_where_the_assignment_says_so(tmp_path, told, counts):
    told({"silu": {"state": "done", "claimed": "float32"}})
    judged = judging.judge(tmp_path, replace(HOW, assignment=Assignment(points={"silu": 2}, claims=counts)))
    assert judged.points == (2 if counts else 0)
    assert "done*" in marks.table([judged, judged])
    assert marks.table([judged]).endswith("* of what it claims, which is not everything")


@pytest.mark.parametrize("returncode", [-9, 2, 3, 4, 5])
def test_a_run_that_did_not_end_as_it_should_is_a_problem_and_no_result(tmp_path, told, returncode):
    told({"silu": {"state": "done"}}, returncode)
    judged = judging.judge(tmp_path, HOW)
    assert judged.records == []
    assert judged.problem == "the tests did not end: of the run"


@pytest.mark.parametrize("name", ["PYTEST_ADDOPTS", "LLAMA_IMPL", "HYPOTHESIS_PROFILE"])
def test_what_the_environment_asks_of_other_runs_is_not_asked_of_an_exam(tmp_path, told, monkeypatch, name):
    monkeypatch.setenv(name, "something else")
    environments = told({})
    judging.judge(tmp_path, HOW)
    assert name not in environments[0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold a process in this way")
@pytest.mark.parametrize(("state", "returncode", "code"), [("done", 0, 0), ("failing", 1, 1), ("done", 2, 1)])
def test_the_exit_code_says_whether_every_layer_is_done(tmp_path, told, monkeypatch, state, returncode, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    told({"silu": {"state": state}}, returncode)
    assert main(["exam", "here"]) == code


def test_what_a_run_leaves_among_temporary_files_goes_with_it(tmp_path, told):
    environments = told({})
    judging.judge(tmp_path, HOW)
    assert not Path(environments[0]["TMPDIR"]).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold a process in this way")
def test_an_exam_judges_each_submission_and_one_does_not_change_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in {"ada": RIGHT, "bea": WRONG, "cyd": PATCHING}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cosine_schedule.py").write_text(text)
    written = ["--json", "out/marks.json", "--html", "out/class.html"]
    assert main(["exam", "ada", "bea", "cyd", "--layers", "cosine_schedule", "--seed", "5", *written]) == 1
    assert capsys.readouterr().out.startswith("seed 5, 15 examples per property")
    records = {r["submission"]: r for r in json.loads((tmp_path / "out" / "marks.json").read_text())["records"]}
    assert [records[name]["state"] for name in ("ada", "bea", "cyd")] == ["done", "failing", "failing"]
    assert records["ada"]["share"] == 1
    assert set(records["ada"]["checks"]) == {"examples", "rules", "probes"}
    assert records["bea"]["bugs"]
    assert "1 of 3" in (tmp_path / "out" / "class.html").read_text()
    assert not (tmp_path / "out" / "kata").exists()


def test_a_report_says_how_far_a_folder_has_come(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["kata", "mine", "silu", "rope"]) == 0
    (tmp_path / "mine" / "silu.py").write_text("def silu(x):\n    return x.relu()\n")
    kept = board.load(implementation.load("mine"))
    kept.record("silu", Row("failing", passed=3, failed=1, selected=80, sentence="out is 1", bugs=["relu_instead"]))
    kept.save()
    capsys.readouterr()
    assert main(["report", "mine"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["done"], found["of"]) == ("mine", 0, 19)
    assert found["layers"]["silu"]["state"] == "failing"
    assert found["layers"]["silu"]["bugs"] == ["relu_instead"]
    assert found["layers"]["rope"]["state"] == "not written"
