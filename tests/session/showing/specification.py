"""`pytest --spec`: the tests read as the specification, layer by layer, without running one.

    rms_norm
    RMSNorm: divide each token's vector by its root mean square, then scale each feature.
      three and four have the root mean square of 12 5
      ...

`pytest --spec --impl my_llama` runs them too, and puts a tick or a cross before each.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from llama.implementation import Implementation
from llama.layers import LAYERS, layer_module
from tests.judge.items import claim, room, subject_of
from tests.judge.subject import Subject

# Folders of tests that are about the suite itself, and not about Llama.
OF_THE_SUITE = ("judge", "kata", "benchmarks")
MARKS = {"passed": "✓", "failed": "✗", "skipped": "·", "": " "}


class Specification:
    """Plugin of one run; `running` says whether the tests run as well."""

    def __init__(self, running: bool):
        self.running = running
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A failure in any phase counts; a call that passed is not undone by its teardown.
        if report.when == "call" or not report.passed:
            self.outcomes[report.nodeid] = report.outcome

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        return None if self.running else True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        session = terminalreporter._session
        terminalreporter.section("the specification")
        terminalreporter.write_line("\n".join(self._lines(session.items if session else [])))

    def _lines(self, items: Sequence[pytest.Item]) -> Iterator[str]:
        chapters: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
        for item in (item for item in items if item.path.parent.name not in OF_THE_SUITE):
            assert isinstance(item, pytest.Function)  # there are no other tests here
            chapters[_chapter(item)][_sentence(item)].append(item)
        whole = [chapter for chapter in chapters if chapter not in LAYERS]
        for chapter in [*(layer for layer in LAYERS if layer in chapters), *whole]:
            yield f"\n{chapter}"
            yield from _contract(chapter)
            for sentence, of in chapters[chapter].items():
                yield f"  {self._mark(of)} {sentence}"

    def _mark(self, items: list[pytest.Item]) -> str:
        outcomes = {self.outcomes.get(item.nodeid, "") for item in items}
        return MARKS[next((o for o in ("failed", "", "skipped", "passed") if o in outcomes), "")]


def _chapter(item: pytest.Item) -> str:
    subject = subject_of(item)
    if isinstance(subject, Subject):
        return subject.layer
    return f"{item.path.stem.removeprefix('test_').replace('_', ' ')} ({room(item)})"


def _contract(chapter: str) -> Iterator[str]:
    if chapter in LAYERS:
        module = layer_module(chapter)
        yield (module.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _sentence(item: pytest.Function) -> str:
    """The test's name as words, with the parameters that are not what is tested."""
    callspec = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    words = [f"{n}={_short(v)}" for n, v in params.items() if not isinstance(v, Subject | Implementation)]
    return claim(item) + (f" [{', '.join(words)}]" if words else "")


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value).removeprefix("torch.")
    return text if len(text) <= 60 else text[:57] + "..."
