"""Failures of one cause as one paragraph: the first in full, then how many more there are, by their names.

    ... and 12 more tests for the same reason: zeros stay zeros; the mean is not subtracted (3); ...

One cause is one layer of one implementation with the same diagnosis, or else with the same sentence but for its numbers
and places. With -v each failure is shown, as pytest does.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Generator, Hashable

import pytest

PLACE = re.compile(r"\[[\d, ]*\]")
SHOWN = 10
"""So many tests are named."""
NUMBER = re.compile(r"(?<!line )(?<![\w.])-?\d[\d.]*(e[-+]?\d+)?")
"""Not that of a line, which tells one error from another."""


def cause(report: pytest.TestReport) -> Hashable:
    """What has failed, and why; the test itself where that is not known."""
    sentence = getattr(report, "sentence", None)
    if sentence is None or not hasattr(report, "layer"):
        return report.nodeid
    said = getattr(report, "cause", "") or NUMBER.sub("#", PLACE.sub("", sentence))
    return (*report.layer, tuple(getattr(report, "bugs", ())) or said)


def grouped(reports: list[pytest.TestReport]) -> list[pytest.TestReport]:
    """The first report of each cause, which says what else fails with it."""
    causes: dict[Hashable, list[pytest.TestReport]] = defaultdict(list)
    for report in reports:
        causes[cause(report)].append(report)
    for first, *others in causes.values():
        if others:
            tests = f"{len(others)} more tests" if len(others) > 1 else "1 more test"
            first.longrepr = f"{first.longrepr}\n... and {tests} for the same reason: {_names(others)}"
    return [of[0] for of in causes.values()]


def _names(reports: list[pytest.TestReport]) -> str:
    names = [report.nodeid.rpartition("::")[2].partition("[")[0] for report in reports]
    words = Counter(name.removeprefix("test_").replace("_", " ") for name in names)
    shown = [name + (f" ({count})" if count > 1 else "") for name, count in words.most_common(SHOWN)]
    return "; ".join(shown if len(words) <= SHOWN else [*shown, "and so on; -v shows all"])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    failed = terminalreporter.stats.get("failed", [])
    if not failed or terminalreporter.config.get_verbosity() > 0:
        yield
        return
    # pytest lists what stands there, in its own two ways, and counts it later.
    terminalreporter.stats["failed"] = grouped(failed)
    try:
        yield
    finally:
        terminalreporter.stats["failed"] = failed
