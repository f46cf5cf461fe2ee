"""python -m llama kata my_llama --watch: saving a layer runs its tests, and the answer stands there at once.

    Watch(folder, tests, screen).handle(Saved([Path("my_llama/rope.py")]))

What happens comes as events, one after another: a file was saved, a key was pressed, a run has printed something or has
ended. `watch` collects them from the threads that wait for them; `Watch` decides what is done and shown.
"""

import queue
import re
import shutil
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import watchfiles

from llama.kata import board, hint
from llama.kata.board import unit_test
from llama.kata.watching import terminal
from llama.kata.watching.terminal import Screen
from llama.kata.watching.warm import Ended, Printed, Progress, Tests
from llama.layers import LAYERS

KEYS = "h hint   n next layer   p picture   a all tests   q quit"
RED, FAINT = "31", "2"


@dataclass(frozen=True)
class Saved:
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Key:
    letter: str


Event = Saved | Key | Printed | Ended


class Runs(Protocol):
    """What starts the tests: warm.Tests."""

    def start(self, layer: str = "", every_failure: bool = False) -> int: ...

    def stop(self) -> None: ...


class Watch:
    """The loop of a learner, event by event."""

    def __init__(
        self,
        folder: Path,
        tests: Runs,
        screen: Screen,
        time_limit: float = 60.0,
        has_keys: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder, self.tests, self.screen = folder, tests, screen
        self.time_limit, self.has_keys, self.clock = time_limit, has_keys, clock
        self.layer = ""
        """The layer that is worked on: the one that was saved last."""
        self.run: int | None = None
        """The run that is under way."""
        self.began = 0.0
        self.output = ""
        self.progress = Progress((), LAYERS[0])

    def begin(self) -> None:
        """Find out how far the folder has come."""
        self._start("")

    def handle(self, event: Event) -> bool:
        """Do what it asks for. Gives False when the learner wants to quit."""
        if isinstance(event, Saved):
            self._saved(event.files)
        elif isinstance(event, Key):
            return self._key(event.letter)
        elif event.run != self.run:
            pass  # one that was stopped
        elif isinstance(event, Printed):
            self.output += event.text
            self.screen.write(event.text)
        else:
            self._ended(event.progress)
        return True

    def check_time(self) -> None:
        """Stop a run that takes too long."""
        if self.run is not None and self.clock() - self.began > self.time_limit:
            self._stop()
            self.screen.line(
                f"{self.layer or self.folder} was stopped after {self.time_limit:g} seconds. Does a loop never end? "
                "Save the file to run it again; --time-limit allows more.",
                RED,
            )
            self._show_keys()

    def _saved(self, files: Iterable[Path]) -> None:
        layers = [layer for layer in LAYERS if any(file.stem == layer for file in files)]
        if not layers:
            layers = [self.layer or self.progress.following or LAYERS[0]]  # a file that layers import
        self._test(self.layer if self.layer in layers else layers[0])

    def _test(self, layer: str, every_failure: bool = False) -> None:
        self.layer = layer
        self.screen.clear()
        self.screen.line(
            f"{self.folder / layer}.py, {'all tests' if every_failure else 'tested'} at {time.strftime('%X')}", FAINT
        )
        self._start(layer, every_failure)

    def _start(self, layer: str, every_failure: bool = False) -> None:
        self.output, self.began = "", self.clock()
        self.run = self.tests.start(layer, every_failure)

    def _stop(self) -> None:
        self.tests.stop()
        self.run = None

    def _ended(self, progress: Progress | None) -> None:
        """Whether the layer is right, and what comes next, the run itself has said last."""
        self.run = None
        if progress is None:
            self.screen.line(f"The process that tested {self.layer} has died: a crash in C, or too little memory.", RED)
        elif progress.problem:
            if not self.output:
                self.screen.line(progress.problem, RED)
        else:
            self.progress = progress
            if not self.layer:  # nothing was saved yet
                self.screen.line(self._board())
                self._show_next()
        self._show_keys()

    def _board(self) -> str:
        return f"{len(self.progress.done)} of {len(self.progress.layers)} layers done"

    def _show_next(self) -> None:
        if layer := self.progress.following:
            row = board.rows(str(self.folder)).get(layer)
            verb = "mend" if row is not None and row.state == "failing" else "write"
            self.screen.line(f"Next: {verb} {self.folder / layer}.py; read {unit_test(layer)}")
        else:
            self.screen.line(f"Next: pytest --impl {self.folder}, with more examples and the whole model")

    def _show_keys(self) -> None:
        if self.has_keys:
            self.screen.line(KEYS, FAINT)

    def _key(self, letter: str) -> bool:
        if letter in ("q", terminal.END):
            return False
        if letter == "h" and (layer := self._unfinished()):
            self.screen.line(_hint(layer, self.folder))
        elif letter == "n":
            self._next()
        elif letter == "p":
            self._picture()
        elif letter == "a" and (layer := self.layer or self.progress.following):
            self._test(layer, every_failure=True)
        return True

    def _unfinished(self) -> str:
        """The layer that is worked on, or the next where that one is done."""
        return self.progress.following if self.layer in ("", *self.progress.done) else self.layer

    def _next(self) -> None:
        """Go on with the layer after this one that is not done, or the first such."""
        unfinished = [layer for layer in self.progress.layers if layer not in self.progress.done]
        at = LAYERS.index(self.layer or self.progress.following or LAYERS[0])
        later = [layer for layer in unfinished if LAYERS.index(layer) > at]
        self._stop()
        self.layer = next(iter(later or unfinished), "")
        self.progress = replace(self.progress, following=self.layer)
        self.screen.clear()
        self.screen.line(self._board())
        self._show_next()
        self._show_keys()

    def _picture(self) -> None:
        found = re.findall(r"^Picture: (.+)$", self.output, re.MULTILINE)
        self.screen.line(Path(found[-1]).resolve().as_uri() if found else "The last run has left no picture.")


def _hint(layer: str, folder: Path) -> str:
    columns = min(shutil.get_terminal_size().columns, hint.WIDTH)
    paragraphs = hint.next_hint(layer, str(folder))
    return "\n".join(textwrap.fill(text, columns, break_on_hyphens=False) for text in paragraphs)


def watch(folder: Path, time_limit: float = 60.0) -> None:
    """Test the layers of a folder as they are saved, until q or Ctrl-C. Raises ValueError where there are no tests."""
    if not Path("tests/unit").is_dir():
        raise ValueError(f"kata: there are no tests in {Path.cwd()}; run --watch in the folder of the project")
    events: queue.Queue[Event] = queue.Queue()
    screen, finished = Screen(), threading.Event()
    watcher = threading.Thread(target=_watch_files, args=(folder, events, finished))
    watcher.start()
    tests = None
    try:
        with terminal.keys(lambda letter: events.put(Key(letter))) as has_keys:
            screen.line(
                f"{folder}: save a file, and its layer is tested; {'q' if has_keys else 'Ctrl-C'} ends it", FAINT
            )
            tests = Tests(folder, events.put, screen.colour)
            loop = Watch(folder, tests, screen, time_limit, has_keys)
            loop.begin()
            _loop(loop, events)
    except KeyboardInterrupt:
        pass
    finally:
        finished.set()
        if tests is not None:
            tests.close()
        watcher.join()


def _loop(loop: Watch, events: "queue.Queue[Event]") -> None:
    while True:
        try:
            if not loop.handle(events.get(timeout=0.2)):
                return
        except queue.Empty:
            pass
        loop.check_time()


def _watch_files(folder: Path, events: "queue.Queue[Event]", finished: threading.Event) -> None:
    """Tell of files of Python that are saved: those that are there, not those that an editor has put away."""
    for changes in watchfiles.watch(
        folder, watch_filter=watchfiles.PythonFilter(), stop_event=finished, step=20, raise_interrupt=False
    ):
        if files := tuple(path for _, name in changes if (path := Path(name)).is_file()):
            events.put(Saved(files))
