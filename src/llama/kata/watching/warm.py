"""Runs of the tests that begin at once: each in a process of its own, which has imported everything before it is asked.

    tests = Tests(Path("my_llama"), tell=print)
    run = tests.start("rope")        # tell(Printed(run, text)) as the run prints, and Ended(run, board) at its end
    tests.stop()                     # whatever it is doing
    tests.close()

One process always waits for the next request. On Linux it is forked, in milliseconds, from a server that has imported
torch, pytest and the tests. Elsewhere, where Windows cannot fork and Apple's libraries do not survive it, it is started
as soon as the one before it is in use, and imports them while the learner writes.
"""

import contextlib
import gc
import io
import multiprocessing
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from llama import implementation
from llama.kata import board
from llama.kata.watching.sharing import Shared

if sys.platform == "linux":
    CONTEXT = multiprocessing.get_context("forkserver")
else:
    CONTEXT = multiprocessing.get_context("spawn")
FORKS = sys.platform == "linux"
QUIETLY = (
    *("-qq", "-rN", "--no-header", "-p", "no:cacheprovider"),
    "--capture=sys",  # two processes would write to the file that it captures in otherwise
    "-Wignore:Module already imported so cannot be rewritten",  # it would rewrite asserts of ours, which need it not
)
"""Options of pytest."""
UNIT = "tests/unit/"
ORDER = ("failing", "changed", "not run", "not written")
"""What to go on with first, of the states of a board."""
PREPARED = "llama.kata.watching.prepared"
"""The module whose import is `prepare`: the server of multiprocessing is told what to import, not what to call."""


@dataclass(frozen=True)
class Request:
    folder: str
    layer: str = ""
    """Without one no test runs, and the board is as earlier runs left it."""
    every_failure: bool = False
    """Run all tests of the layer, and do not stop at the first that fails."""
    columns: int = 80
    colour: bool = False


@dataclass(frozen=True)
class Progress:
    """What a board says, in short."""

    done: tuple[str, ...]
    following: str
    """The layer to go on with: the first that fails, else the first that is not done; none when all are."""
    problem: str = ""
    """Why the folder could not be loaded."""
    layers: tuple[str, ...] = board.FIRST_LAYERS
    """All layers of the board, in the order in which they are written."""


@dataclass(frozen=True)
class Printed:
    run: int
    text: str


@dataclass(frozen=True)
class Ended:
    run: int
    progress: Progress | None
    """None where the process died: a crash in C, or os.kill."""


class Tests:
    """The tests of the layers in a folder, one run at a time. What a run does is told from a thread, to `tell`."""

    def __init__(self, folder: Path, tell: Callable[[Printed | Ended], object], colour: bool = False):
        self.folder, self.tell, self.colour = folder, tell, colour
        if FORKS:
            CONTEXT.set_forkserver_preload([PREPARED])
        self._count = 0
        self._running: _Process | None = None
        self._ready = self._process()

    def start(self, layer: str = "", every_failure: bool = False) -> int:
        """Run the tests of a layer; without one, only find out how far the folder has come. Gives the run's number.

        The run before it is stopped.
        """
        self.stop()
        self._running, self._count = self._ready, self._count + 1
        columns = shutil.get_terminal_size().columns
        self._running.requests.send(Request(str(self.folder), layer, every_failure, columns, self.colour))
        threading.Thread(target=self._listen, args=(self._count, self._running.replies), daemon=True).start()
        self._ready = self._process()
        return self._count

    def stop(self) -> None:
        """End the run, if it has not ended. What it has printed until then may still be told."""
        if self._running is not None:
            self._running.kill()
        self._running = None

    def close(self) -> None:
        """End every process."""
        self.stop()
        self._ready.kill()

    def _process(self) -> "_Process":
        requests, ours = CONTEXT.Pipe(duplex=False)
        replies, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_wait_and_run, args=(requests, theirs))
        process.start()
        requests.close()  # that of the process is another, and the only one by now: its end is seen
        theirs.close()
        return _Process(process, ours, replies)

    def _listen(self, run: int, replies: Connection) -> None:
        progress = None
        with replies, contextlib.suppress(EOFError, OSError):  # the process has ended
            while progress is None:
                reply = replies.recv()
                if isinstance(reply, Progress):
                    progress = reply
                else:
                    self.tell(Printed(run, reply))
        self.tell(Ended(run, progress))


@dataclass(frozen=True)
class _Process:
    process: multiprocessing.process.BaseProcess
    requests: Connection
    replies: Connection

    def kill(self) -> None:
        """End it, with what it has started."""
        if self.process.pid and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.requests.close()


def prepare() -> None:
    """Import what the tests need, and leave it out of every later collection of garbage."""
    torch.set_num_threads(1)  # the tests ask for it; a fork does not survive more, once they have worked
    _draw()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*QUIETLY, "--collect-only", "--impl", "vectorized", "tests/unit", "tests/property"])
    gc.collect()
    gc.freeze()


def _draw() -> None:
    """A picture, as a failing test leaves one: the first takes longer than those after it."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow([[0.0, 1.0]]), ax=axes)
    figure.savefig(io.BytesIO(), format="png")


def _wait_and_run(requests: Connection, replies: Connection) -> None:
    """What a process does: get ready, wait for a request, answer it, and end."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C does not come here, and what this process starts can be ended with it
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if PREPARED not in sys.modules:
        prepare()
    try:
        request: Request = requests.recv()
    except EOFError:
        return
    threading.Thread(target=_end_with, args=(requests,), daemon=True).start()
    # Python knows compiled files by the second and the size: of two saves in a second it would run the first again.
    sys.dont_write_bytecode = True
    os.environ["COLUMNS"] = str(request.columns)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)  # what is written past Python would come between the lines
    output = _Output(replies, request.columns)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        if request.layer:
            _test(request)
        progress = _progress(request.folder)
    replies.send(progress)


def _test(request: Request) -> None:
    options = [f"--color={'yes' if request.colour else 'no'}", "--impl", request.folder, "-k", request.layer]
    plugins: list[object] = [Shared(UNIT)] if FORKS and (os.cpu_count() or 1) > 1 else []
    if request.every_failure:
        options.append("--maxfail=1000")  # with pytest's own dots, for this may take long
    else:
        plugins.append(_Announcer())
    pytest.main([*QUIETLY, *options], plugins=plugins)


def _end_with(requests: Connection) -> None:
    """End this process when the one that asked has ended, however that ended."""
    with contextlib.suppress(EOFError, OSError):
        requests.recv()
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _progress(folder: str) -> Progress:
    try:
        found = board.load(implementation.load(folder))
    except implementation.ImplementationError as error:
        return Progress((), "", str(error))
    states = {layer: found.state(layer) for layer in found.layers}
    done = tuple(layer for layer in states if states[layer] == "done")
    following = [layer for state in ORDER for layer in states if states[layer] == state]
    return Progress(done, following[0] if following else "", layers=tuple(states))


class _Output(io.TextIOBase):
    """Standard output that goes to the process that asked, in lines that a terminal need not break within words."""

    def __init__(self, replies: Connection, columns: int):
        self.replies, self.columns = replies, columns

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if text:
            self.replies.send("".join(map(self._broken, text.splitlines(keepends=True))))
        return len(text)

    def _broken(self, line: str) -> str:
        if len(line.rstrip()) <= self.columns:
            return line
        end = line[len(line.rstrip()) :]
        return textwrap.fill(line, self.columns, break_long_words=False, break_on_hyphens=False) + end


class _Announcer:
    """A plugin of pytest that says so when the worked examples have passed: the other tests take seconds."""

    def __init__(self) -> None:
        self.left = self.examples = self.others = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.left = self.examples = sum(item.nodeid.startswith(UNIT) for item in session.items)
        self.others = len(session.items) - self.examples

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: object) -> tuple[str, str, str] | None:
        """No dots: what a test says, it says in words."""
        outcome = getattr(report, "outcome", "")
        if not isinstance(report, pytest.TestReport) or (report.when != "call" and outcome == "passed"):
            return None
        return ("error" if outcome == "failed" and report.when != "call" else outcome), "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and report.nodeid.startswith(UNIT):
            self.left -= 1
            if not self.left:
                print(f"{self.examples} worked examples pass; {self.others} more tests to go")
