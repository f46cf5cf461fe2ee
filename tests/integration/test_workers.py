"""`pytest -n 2`: two processes count and report what one does, once. The whole suite is run so."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import conftest
from tests import zoo
from tests.background import run_suite

# One layer is wrong, with eps outside the square root, and the other is right.
MINE = """
def rms_norm(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * weight


def silu(x):
    return x * x.sigmoid()
"""
TESTS = ("--impl", "{folder}/mine.py", "tests/unit/test_rms_norm.py", "tests/unit/test_silu.py")


def _counts(run):
    return {
        word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped)", run.stdout.splitlines()[-1])
    }


def _board(run):
    """Its lines, without what the first failure says: of two workers either may be the first."""
    ((lines),) = re.findall(r"= mine, in reading order =+\n(.*?)\n=", run.stdout, re.DOTALL)
    return [line.partition(":")[0] for line in lines.splitlines()]


@pytest.mark.suite({"mine.py": MINE}, "-n", "2", *TESTS)
def test_two_workers_count_what_one_process_does_and_print_the_board_once(run):
    folder = Path(run.args[run.args.index("--impl") + 1]).parent
    alone = run_suite(folder, {}, *TESTS)
    assert run.returncode == alone.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert _counts(run) == _counts(alone)
    assert _board(run) == _board(alone)
    for line in ("exactly what you get when eps is added outside the square root.", "Picture: "):
        assert run.stdout.count(line) == alone.stdout.count(line) > 0


@pytest.mark.suite({"mine.py": MINE}, "-n", "2", "--impl", "{folder}/mine.py", "-k", "silu")
def test_a_layer_all_of_whose_tests_have_passed_in_some_worker_is_done(run):
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    assert re.search(rf"silu +done +{_counts(run)['passed']} tests", run.stdout), run.stdout


@pytest.mark.suite({"mine.py": MINE}, "-n", "1", "--impl", "{folder}/mine.py", "tests/unit/test_rope.py")
def test_workers_that_test_nothing_are_not_green(run):
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout


@pytest.mark.suite({}, "-q", "-n", "2", "--zoo", "-x", "-k", "silu")
def test_the_table_of_the_zoo_holds_what_each_worker_has_killed(run):
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    bugs = zoo.bugs("silu")
    assert run.stdout.count(f"{len(bugs)} bugs, {len(bugs)} killed") == 1
    assert all(run.stdout.count(f"  {bug.name}: ") == 1 for bug in bugs)


@pytest.mark.parametrize(
    "option",
    [pytest.param(o, marks=pytest.mark.suite({}, "-n", "2", o)) for o in ("--spec", "--plots", "--benchmark")],
)
def test_what_is_made_in_one_process_is_refused(run, option):
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {option} needs a single process: leave out -n 2" in run.stderr


def _asked(places, **options):
    option = SimpleNamespace(**{"numprocesses": None} | options)
    return SimpleNamespace(
        args_source=pytest.Config.ArgsSource[places],
        option=option,
        getoption=lambda name, default=None: getattr(option, name, default),
    )


@pytest.mark.parametrize(
    ("places", "options", "workers"),
    [
        ("TESTPATHS", {}, "auto"),
        ("TESTPATHS", {"numprocesses": 0}, 0),
        ("TESTPATHS", {"keyword": "rope"}, None),
        ("TESTPATHS", {"impl": ["mine.py"]}, None),
        ("TESTPATHS", {"spec": True}, None),
        ("TESTPATHS", {"benchmark": True}, None),
        ("TESTPATHS", {"usepdb": True}, None),
        ("TESTPATHS", {"capture": "no"}, None),
        ("ARGS", {}, None),
    ],
    ids=str,
)
def test_the_whole_suite_is_shared_out_and_a_part_of_it_is_not(monkeypatch, places, options, workers):
    monkeypatch.delenv("LLAMA_IMPL", raising=False)
    asked = _asked(places, **options)
    conftest.pytest_cmdline_main(asked)
    assert asked.option.numprocesses == workers


def test_a_worker_has_no_workers():
    worker = _asked("TESTPATHS")
    worker.workerinput = {}
    conftest.pytest_cmdline_main(worker)
    assert worker.option.numprocesses is None
