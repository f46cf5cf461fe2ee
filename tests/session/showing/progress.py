"""How far each implementation of `--impl` has come: counted as the tests end, shown at the end, and kept."""

from collections import Counter, defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import pytest

from llama.implementation import Implementation
from llama.kata import board
from llama.kata.board import Board, Row
from tests.judge.items import subject_of
from tests.judge.subject import Subject
from tests.session.choosing import claims
from tests.session.choosing.keyword import asked_for
from tests.session.choosing.selection import UNDER_TEST


@dataclass
class Tally:
    """The tests of one layer of one implementation."""

    outcomes: Counter[str] = field(default_factory=Counter)
    selected: int = 0
    sentence: str = ""
    """What the first failure says."""
    cause: str = ""
    """What it comes from, as far as that is known, and the names of the bugs that do the same."""
    bugs: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether every test has passed, but those of what is not claimed."""
        passed = self.outcomes["passed"]
        return bool(passed) and passed + self.outcomes["left out"] == self.selected


TALLIES: dict[tuple[str, str], Tally] = defaultdict(Tally)
IMPLEMENTATIONS: dict[str, Implementation] = {}


def failing(implementation: Implementation) -> list[str]:
    """The layers of it that have failed a test in this run."""
    return [
        layer for (name, layer), tally in TALLIES.items() if name == implementation.name and tally.outcomes["failed"]
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    subject = subject_of(item)
    failed = failing(subject) if isinstance(subject, Implementation) else []
    if failed and item.config.stash[UNDER_TEST].foreign:
        pytest.skip(f"the whole stack waits until its layers are right: {', '.join(failed)}")


def pytest_collection_finish(session: pytest.Session) -> None:
    TALLIES.clear()
    IMPLEMENTATIONS.clear()
    for item in session.items:
        if isinstance(subject := subject_of(item), Subject):
            TALLIES[subject.implementation.name, subject.layer].selected += 1
            if subject.implementation.source:  # a learner's, which has a board
                IMPLEMENTATIONS[subject.implementation.name] = subject.implementation


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
        tally.outcomes["left out" if claims.is_left_out(report) else report.outcome] += 1
        if report.failed and not tally.sentence:
            tally.sentence = getattr(report, "sentence", "see above")
            tally.cause, tally.bugs = getattr(report, "cause", ""), getattr(report, "bugs", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.option.collectonly and not config.getoption("--record"):
        for implementation in IMPLEMENTATIONS.values():
            shown = show(implementation, _is_whole(config), bool(config.getoption("strict")))
            if layers := asked_for(config):
                terminalreporter.write_line("\n".join(shown.line(layer) for layer in layers))
            else:
                terminalreporter.section(f"{implementation.name}, in reading order")
                terminalreporter.write_line(str(shown))
            if left_out := claims.summary(implementation):
                terminalreporter.write_line(left_out)
        if IMPLEMENTATIONS and not asked_for(config) and not config.getoption("--apart"):
            sources = " ".join(implementation.source for implementation in IMPLEMENTATIONS.values())
            terminalreporter.write_line(
                "This is for code that you trust: it runs in this process, and could change what is said here. "
                f"What counts for others is python -m llama exam {sources}"
            )


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests of a layer ran: not only those of a path, or of a part of a name, or those that draw."""
    option = config.option
    part = option.plots or option.file_or_dir or option.markexpr
    return not part and (not option.keyword or bool(asked_for(config)))


def show(implementation: Implementation, whole: bool, strict: bool) -> Board:
    """The board after this run, which is also kept for `python -m llama kata --status`."""
    shown, profile = board.load(implementation), hypothesis.settings.get_current_profile_name()
    for (name, layer), tally in TALLIES.items():
        passed, failed = tally.outcomes["passed"], tally.outcomes["failed"]
        # All of its tests make a layer done, but one makes it fail.
        if name == implementation.name and (failed or (whole and tally.is_done)):
            state = "failing" if failed else "done"
            row = Row(state, passed, failed, tally.selected - tally.outcomes["left out"], tally.sentence, profile)
            row.cause, row.bugs, row.strict = tally.cause, tally.bugs, strict
            row.claimed = str(implementation.claims[layer].about(layer)) if layer in implementation.claims else ""
            shown.record(layer, row)
    shown.save()
    return shown
