"""`pytest --zoo`: the suite is run against every bug of the zoo, and must turn red on each.

A failure is what is wanted here, so it counts as passed; the table says which test killed which bug. With -x
a bug is left alone after its first death, which only answers whether all are killed.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator

import pytest

from llama.layers import LAYERS
from tests.judge.items import claim, subject_of
from tests.judge.subject import Subject

# What killed (True) and what did not (False): layer -> bug -> test -> verdict.
Verdicts = dict[str, dict[str, dict[str, bool]]]


class Table:
    """Plugin of one run; `first_death` leaves a bug alone once it is killed."""

    def __init__(self, first_death: bool):
        self.first_death = first_death
        self.verdicts: Verdicts = defaultdict(lambda: defaultdict(dict))

    def pytest_runtest_setup(self, item: pytest.Function) -> None:
        layer, bug, _ = _about(item)
        if self.first_death and any(self.verdicts[layer][bug].values()):
            pytest.skip("it is dead")

    def record(self, layer: str, bug: str, test: str, killed: bool) -> None:
        tests = self.verdicts[layer][bug]
        tests[test] = tests.get(test, False) or killed

    def flat(self) -> Iterator[tuple[tuple[str, str, str], bool]]:
        """((layer, bug, test), verdict), as a worker of pytest-xdist sends them."""
        for layer, bugs in self.verdicts.items():
            for bug, tests in bugs.items():
                for test, killed in tests.items():
                    yield (layer, bug, test), killed

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" and not report.skipped:
            layer, bug, test = _about(item)
            self.record(layer, bug, test, report.failed)
            report.outcome, report.longrepr = "passed", None
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.survivors():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def survivors(self) -> list[str]:
        return [
            f"{layer}: {bug}"
            for layer, bugs in self.verdicts.items()
            for bug, tests in bugs.items()
            if not any(tests.values())
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("the zoo")
        for layer in LAYERS:
            if layer in self.verdicts:
                terminalreporter.write_line("\n".join(_rows(layer, self.verdicts[layer], matrix=not self.first_death)))
        count = sum(len(bugs) for bugs in self.verdicts.values())
        survivors = self.survivors()
        terminalreporter.write_line(
            f"{count} bugs, {count - len(survivors)} killed" + (f"; alive: {', '.join(survivors)}" if survivors else "")
        )


def _about(item: pytest.Function) -> tuple[str, str, str]:
    """The layer, the bug, and the test with those of its parameters that are not the bug."""
    subject = subject_of(item)
    assert isinstance(subject, Subject)  # every other test is deselected
    others = [str(v) for v in item.callspec.params.values() if v is not subject]
    return subject.layer, subject.implementation.name, claim(item) + (f" [{', '.join(others)}]" if others else "")


def _rows(layer: str, bugs: dict[str, dict[str, bool]], matrix: bool) -> Iterator[str]:
    """A column for each test, a row for each bug."""
    tests = list(dict.fromkeys(test for verdicts in bugs.values() for test in verdicts))
    yield f"\n{layer}"
    if not matrix:
        for bug, verdicts in bugs.items():
            yield f"  {bug}: {next((t for t, killed in verdicts.items() if killed), 'ALIVE')}"
        return
    for number, test in enumerate(tests, 1):
        yield f"  {number:2} {test}"
    width = max(map(len, bugs)) + 2
    yield "  " + " " * width + "".join(f"{n:3}" for n in range(1, len(tests) + 1))
    for bug, verdicts in bugs.items():
        killers = sum(verdicts.values())
        remark = {0: "  ALIVE", 1: "  one test alone"}.get(killers, "")
        yield f"  {bug:{width}}" + "".join("  x" if verdicts.get(t) else "  ." for t in tests) + remark
    idle = [str(n) for n, test in enumerate(tests, 1) if not any(verdicts.get(test) for verdicts in bugs.values())]
    if idle:
        yield f"  tests that kill none of these: {', '.join(idle)}"
