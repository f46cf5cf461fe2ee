"""How far each implementation of `--impl` has come: counted as the tests end, shown at the end, and kept."""

from collections import Counter, defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

from llama import board
from llama.board import Row
from llama.implementation import Implementation
from tests.subject import Subject


@dataclass
class Tally:
    """The tests of one layer of one implementation."""

    outcomes: Counter[str] = field(default_factory=Counter)
    selected: int = 0
    sentence: str = ""


TALLIES: dict[tuple[str, str], Tally] = defaultdict(Tally)


def subject_of(item: pytest.Item) -> Subject | Implementation | None:
    """The layer, or the whole implementation, that the test is about."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec else ()
    return next((value for value in values if isinstance(value, Subject | Implementation)), None)


def claim(item: pytest.Function) -> str:
    """The test's name as words."""
    return item.originalname.removeprefix("test_").replace("_", " ")


def failing(implementation: Implementation) -> list[str]:
    """The layers of it that have failed a test in this run."""
    return [
        layer for (name, layer), tally in TALLIES.items() if name == implementation.name and tally.outcomes["failed"]
    ]


def pytest_collection_finish(session: pytest.Session) -> None:
    TALLIES.clear()
    for item in session.items:
        if isinstance(subject := subject_of(item), Subject):
            TALLIES[subject.implementation.name, subject.layer].selected += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    if isinstance(subject := subject_of(item), Subject):
        report.layer = (subject.implementation.name, subject.layer)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test counts once: by its call, or by what kept it from being called.
    if (key := getattr(report, "layer", None)) and (
        report.when == "call" or (report.when == "setup" and not report.passed)
    ):
        tally = TALLIES[tuple(key)]
        tally.outcomes[report.outcome] += 1
        if report.failed and not tally.sentence:
            tally.sentence = getattr(report, "sentence", "it could not be called")


def show(implementation: Implementation) -> str:
    """The board after this run, which is also kept for `python -m llama kata --status`."""
    shown = board.load(implementation)
    for (name, layer), tally in TALLIES.items():
        passed, failed = tally.outcomes["passed"], tally.outcomes["failed"]
        # A part of the tests that passes (`-k`, a path) does not make a layer done; all of them do.
        if name != implementation.name or not (failed or passed == tally.selected):
            continue
        state = "failing" if failed else "done"
        shown.record(layer, Row(state, passed, failed, tally.selected, tally.sentence))
    shown.save()
    return str(shown)
