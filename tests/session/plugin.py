"""The plugin that runs the tests: it chooses what is under test, the profile of Hypothesis, and the other plugins.

It is imported by conftest.py, which enforces the annotations of our modules before any of them is imported.
"""

import gc
import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch
import torch._functorch.config
from hypothesis import Phase, is_hypothesis_test
from hypothesis.internal.conjecture import engine

from llama.machine.device import usable
from tests.cases import target
from tests.cases.case import Case
from tests.judge.assertions import fail
from tests.judge.guards import surroundings
from tests.judge.guards.endings import release_the_process
from tests.judge.items import subject_of
from tests.judge.results import Kept
from tests.judge.subject import Subject
from tests.judge.telling import messages
from tests.judge.telling.pictures import Drawings
from tests.session.choosing import claims, selection
from tests.session.choosing.keyword import asked_for
from tests.session.choosing.selection import UNDER_TEST
from tests.session.running import nested_runs, workers
from tests.session.running.nested_runs import Background
from tests.session.showing import causes, cheats_table, gallery, progress
from tests.session.showing.gallery import GALLERY, Gallery
from tests.session.showing.others import AsOthers
from tests.session.showing.record import Record
from tests.session.showing.specification import Specification
from tests.session.showing.zoo_table import Table

MARKERS = (
    "tensors: compares with the naive loops or needs gradients, so the naive implementation itself is left out",
    "float64: works in float64 alone, so it is left out on a device without it",
    "exact: works with numbers that half precision does not hold, so it is left out where nothing else is claimed",
    "written: asks whether there is anything to test; for a stub it is the one test that runs, and fails",
    "refusal: says how wrong input is refused; with --impl it runs only with --strict",
    "suite(files, *arguments, **environment): a run of the suite that the test looks at (nested_runs.py)",
    "cold: its run begins as a shell begins it, in a process that has imported nothing",
)
SHRINKING = 3
"""So many seconds of a failing example: each step costs a call, of a whole model perhaps, and somebody waits."""
PROFILES = {"quick": 5, "default": 15, "ci": 50, "thorough": 300}


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # The tensors are tiny: a second thread would spend its time waiting, and with other work on the machine
    # (pytest -n) each wait is as long as a time slice.
    torch.set_num_threads(1)
    # A compiled layer is asked for its gradients several times; by default torch frees what it kept after the first.
    torch._functorch.config.donated_buffer = False
    try:
        target.use_device(usable(config.getoption("--device")))
    except ValueError as error:
        raise pytest.UsageError(f"--{error}") from error
    chosen = config.stash[UNDER_TEST] = selection.choose(config)
    if chosen.foreign:
        # Our own annotations are not what is tested, and checking them takes time.
        jaxtyping.config.update("jaxtyping_disable", True)
        config.addinivalue_line("filterwarnings", "ignore")  # a layer may warn; ours may not
    config.stash[GALLERY] = Gallery()
    plugins = [claims, selection, gallery, nested_runs, Background(), workers]
    zoo, cheats = config.getoption("--zoo"), config.getoption("--cheats")
    practising = chosen.foreign and bool(config.option.keyword) and not cheats
    one_layer = practising and len(asked_for(config)) == 1 and not config.getoption("--record")
    if not cheats:  # nobody practises on them
        plugins.append(progress)
    if others := config.getoption("--as"):
        plugins.append(AsOthers(others, config.option.keyword))
    elif zoo:
        plugins.append(Table(first_death=bool(config.option.maxfail)))
        config.option.maxfail = 0
    elif cheats:
        plugins.append(cheats_table.Table(chosen.refused))
    else:
        drawing = [] if config.getoption("--record") else [Drawings()]
        plugins += [messages, *drawing, *([causes] if chosen.foreign else [])]
        if one_layer and not config.option.maxfail:
            config.option.maxfail = 1  # one thing at a time; --maxfail=1000 shows them all
        if one_layer and config.option.reportchars == "fE":
            config.option.reportchars = ""  # the failure stands just above
    if path := config.getoption("--record"):
        plugins.append(Record(Path(path)))
    if config.getoption("--spec"):
        plugins.append(Specification(running=chosen.foreign))
    for plugin in plugins:
        config.pluginmanager.register(plugin)
    unread = zoo or cheats or config.getoption("--record")
    _choose_profile(config, "quick" if practising and not zoo else "default", shrink=not unread)


def _choose_profile(config: pytest.Config, otherwise: str, shrink: bool) -> None:
    chosen = os.environ.get("HYPOTHESIS_PROFILE", otherwise)
    if chosen not in PROFILES:
        raise pytest.UsageError(f"HYPOTHESIS_PROFILE must be one of {', '.join(PROFILES)}, got {chosen}")
    # The same examples on every run, unless a search for new ones is asked for.
    searching = chosen == "thorough" or config.getoption("--hypothesis-seed") is not None
    examples = config.getoption("--examples")
    if examples is not None and examples < 1:
        raise pytest.UsageError(f"--examples must be at least 1, got {examples}")
    hypothesis.settings.register_profile(
        chosen,
        max_examples=examples or PROFILES[chosen],
        derandomize=not searching,
        database=None,
        deadline=None,  # a time limit would only measure how busy the machine is
        print_blob=False,
        # Not explain, which tells of a failing example what lines it ran; tests/judge/telling says it in words.
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])),
        report_multiple_bugs=False,
    )
    hypothesis.settings.load_profile(chosen)
    assert engine.MAX_SHRINKING_SECONDS  # there is no setting for it
    engine.MAX_SHRINKING_SECONDS = SHRINKING


def pytest_report_header() -> str:
    return f"device: {target.DEVICE}, profile: {hypothesis.settings.get_current_profile_name()}"


def pytest_collection_finish() -> None:
    # What is there by now stays to the end, and most of it is torch: no need to walk through it at each collection.
    gc.freeze()
    surroundings.take_modules()


def pytest_runtest_setup() -> None:
    # A failure speaks of its own test's call and sizes, not of those before it.
    Subject.last = Case.last = None
    Subject.kept = Kept()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    subject = subject_of(item)
    try:
        yield
    finally:
        if isinstance(subject, Subject):
            subject.end()
    if isinstance(subject, Subject) and Subject.last is None and is_hypothesis_test(getattr(item, "obj", None)):
        fail("not one example has called the layer")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reading = session.config.option.collectonly or any(map(session.config.getoption, ("--spec", "--as")))
    if exitstatus == pytest.ExitCode.OK and not reading:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not reporter.stats.get("passed"):
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # nothing but skips proves nothing
    release_the_process(int(session.exitstatus))
