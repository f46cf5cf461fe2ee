"""Runs of the suite within the suite: a test says what it needs, and finds the finished run.

    @pytest.mark.suite({"mine.py": RIGHT}, "--impl", "{folder}/mine.py", "tests/unit")
    def test_it_is_green(run):
        assert run.returncode == 0

They start in the background when the session does, one after another, on the core that it leaves idle. Each
has a folder of its own with the files that the mark names; keywords of the mark are environment variables. Tests
with the same mark look at the same run.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.session.running import programs

ROOT = Path(__file__).parents[3]
OWN = ("HYPOTHESIS_PROFILE", "LLAMA_IMPL", "PYTEST_XDIST")  # what is said to this run alone, and to its workers
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
Finished = CompletedProcess[str]


class Background:
    """Plugin of one session."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(max_workers=1)
        self.runs: dict[str, Future[Finished]] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="llama-kata-")

    def start(self, item: pytest.Item) -> "Future[Finished]":
        mark = item.get_closest_marker("suite")
        assert mark is not None  # a test that takes `run` says which
        wanted = repr((mark.args, mark.kwargs))
        if wanted not in self.runs:
            folder = Path(self.folder.name) / str(len(self.runs))
            start = programs.run_cold if item.get_closest_marker("cold") else programs.run
            self.runs[wanted] = self.executor.submit(_run, start, folder, *mark.args, **mark.kwargs)
        return self.runs[wanted]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        # A worker of pytest-xdist collects every test and runs some: it starts what it comes to.
        if not session.config.option.collectonly and not hasattr(session.config, "workerinput"):
            for item in session.items:
                if item.get_closest_marker("suite"):
                    self.start(item)

    def pytest_sessionfinish(self) -> None:
        self.executor.shutdown(cancel_futures=True)
        self.folder.cleanup()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Finished:
    """The finished run that the test's mark asks for; `run.stdout` and `run.returncode` say how it went."""
    background = next(p for p in request.config.pluginmanager.get_plugins() if isinstance(p, Background))
    return background.start(request.node).result()


def run_suite(folder: Path, files: Mapping[str, str], *arguments: str, **environment: str) -> Finished:
    """What a mark describes, at once: for a test that needs a second run after the one of its mark."""
    return _run(programs.run, folder, files, *arguments, **environment)


def _run(
    start: Callable[..., Finished], folder: Path, files: Mapping[str, str], *arguments: str, **environment: str
) -> Finished:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    placed = [argument.replace("{folder}", str(folder)) for argument in arguments]
    return start(
        *("-m", "pytest", "-p", "no:cacheprovider", *placed),
        cwd=ROOT,
        env=INHERITED | {name: value.replace("{folder}", str(folder)) for name, value in environment.items()},
    )
