"""`pytest -n 2`: two processes count and report what one does, once. The whole suite is run so."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import conftest
from tests import zoo
from tests.session.running.nested_runs import run_suite

# One layer is wrong, with eps outside the square root, and the other is right.
MINE = """
def rms_norm(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * weight


def silu(x):
    return x * x.sigmoid()
"""
# No path, so that all tests of a layer count as all of them; few, so that it is quick.
TESTS = ("-v", "--impl", "{folder}/mine.py", "--ignore", "tests/property", "--ignore", "tests/integration")
IN_TWO = pytest.mark.suite({"mine.py": MINE}, "-n", "2", *TESTS)


def _counts(run):
    return {
        word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped)", run.stdout.splitlines()[-1])
    }


def _board(run):
    """Its lines, without what the first failure says: of two workers either may be the first."""
    ((lines),) = re.findall(r"= mine, in reading order =+\n(.*?)\n=", run.stdout, re.DOTALL)
    return [line.partition(":")[0] for line in lines.splitlines()]


@IN_TWO
def test_two_workers_count_what_one_process_does_and_print_the_board_once(run):
    folder = Path(run.args[run.args.index("--impl") + 1]).parent
    alone = run_suite(folder, {}, *TESTS)
    assert run.returncode == alone.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert _counts(run) == _counts(alone)
    assert _board(run) == _board(alone)
    for line in ("exactly what you get when eps is added outside the square root.", "Picture: "):
        assert run.stdout.count(line) == alone.stdout.count(line) > 0


@IN_TWO
def test_a_layer_all_of_whose_tests_have_passed_in_some_worker_is_done(run):
    passed = re.findall(r"^\[gw[01]\] .* PASSED tests/\S*silu", run.stdout, re.MULTILINE)
    assert re.search(rf"silu +done +{len(passed)} tests", run.stdout), run.stdout


@pytest.mark.suite({"mine.py": MINE}, "-n", "2", "--impl", "{folder}/mine.py", "tests/unit/model/test_rope.py")
def test_two_workers_that_test_nothing_are_not_green(run):
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout


@pytest.mark.suite({}, "-q", "-n", "2", "--zoo", "-x", "-k", "silu", "tests/unit/model/test_silu.py")
def test_the_table_of_the_zoo_holds_what_each_worker_has_killed(run):
    killed = dict(re.findall(r"^  (\w+): (.*)$", run.stdout, re.MULTILINE))
    assert sorted(killed) == sorted(bug.name for bug in zoo.bugs("silu")), run.stdout
    dead = [bug for bug, test in killed.items() if test != "ALIVE"]
    assert run.stdout.count(f"{len(killed)} bugs, {len(dead)} killed") == 1
    assert len({killed[bug] for bug in dead}) > 1  # several tests have, in whichever worker


@pytest.mark.parametrize(
    "option",
    [pytest.param(o, marks=pytest.mark.suite({}, "-n", "2", o)) for o in ("--spec", "--plots", "--benchmark")],
)
def test_what_is_made_in_one_process_is_refused(run, option):
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {option} needs a single process: leave out -n 2" in run.stderr


def _asked(*arguments, where="TESTPATHS"):
    option = SimpleNamespace(numprocesses=None)
    return SimpleNamespace(
        args_source=pytest.Config.ArgsSource[where],
        invocation_params=SimpleNamespace(args=arguments),
        option=option,
        getoption=lambda name, default=None: getattr(option, name, default),
    )


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    for name in conftest.TOLD:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-vv", "-rs"), ("-q", "--zoo"), ("--peers",)], ids=str)
def test_the_whole_suite_is_shared_out(arguments):
    asked = _asked(*arguments)
    conftest.pytest_cmdline_main(asked)
    chosen = asked.option
    assert (chosen.numprocesses, chosen.maxprocesses, chosen.dist) == ("auto", 4, "worksteal")


def _of_a_worker():
    worker = _asked()
    worker.workerinput = {}
    return worker


def _in(numprocesses):
    asked = _asked()
    asked.option.numprocesses = numprocesses
    return asked


@pytest.mark.parametrize(
    "asked",
    [
        *(
            _asked(*part.split())
            for part in ("-k rope", "--impl mine.py", "--spec", "--benchmark", "-x", "-s", "--pdb")
        ),
        pytest.param(_asked(where="ARGS"), id="a path"),
        pytest.param(_of_a_worker(), id="a worker"),  # which would have workers, and so on
        pytest.param(_in(0), id="-n 0"),
    ],
    ids=lambda asked: " ".join(asked.invocation_params.args),
)
def test_anything_else_is_left_as_it_is_asked_for(asked):
    before = dict(vars(asked.option))
    conftest.pytest_cmdline_main(asked)
    assert vars(asked.option) == before


def test_layers_that_the_environment_names_are_tested_in_one_process(monkeypatch):
    monkeypatch.setenv("LLAMA_IMPL", "mine.py")
    asked = _asked()
    conftest.pytest_cmdline_main(asked)
    assert asked.option.numprocesses is None
