"""`pytest --cheats`: the suite is run against every cheat, and must refuse each in a sentence.

A failure is what is wanted here, so it counts as passed, and a cheat is left alone after its first. The table says by
which sentence each was refused, and in which test.
"""

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from tests.judge.items import claim, subject_of
from tests.judge.subject import Subject
from tests.judge.telling import messages


class Table:
    """Plugin of one run; `refused` are those that were refused when they were imported."""

    def __init__(self, refused: Mapping[str, str]):
        self.sentences: dict[str, str] = dict(refused)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.sentences.setdefault(_name(item), "")

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self.sentences.get(_name(item)):
            pytest.skip("it is refused")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "call" and report.failed:
            assert call.excinfo is not None  # it failed
            # Where it is not the layer that failed but the test, that is no refusal.
            if sentence := messages.sentence_of(item, call.excinfo.value, Subject.last):
                report.cheat = _name(item), f"{sentence} [{claim(item)}]"
                report.outcome, report.longrepr = "passed", None
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A report comes from the worker that ran the test, with all that it holds.
        if cheat := getattr(report, "cheat", None):
            name, sentence = cheat
            self.sentences[name] = self.sentences.get(name) or sentence

    def unpunished(self) -> list[str]:
        return [name for name, sentence in self.sentences.items() if not sentence]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unpunished() and not hasattr(session.config, "workerinput"):  # a worker sees a part of them
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("the cheats")
        for name, sentence in sorted(self.sentences.items()):
            terminalreporter.write_line(f"{name}: {sentence or 'NOT REFUSED'}")
        count, missed = len(self.sentences), self.unpunished()
        terminalreporter.write_line(f"{count} cheats, {count - len(missed)} refused")


def _name(item: pytest.Item) -> str:
    subject = subject_of(item)
    assert isinstance(subject, Subject)  # every other test is deselected
    return subject.implementation.name
