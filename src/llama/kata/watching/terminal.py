"""The terminal that a program talks to: its keys, one at a time, and what is written on it.

    with keys(tell=print):
        ...                          # tell("h") as soon as h is pressed; tell(END) when the terminal is closed

Where standard input is no terminal there are no keys; where standard output is none, or NO_COLOR says so, no colour.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

END = "\x04"
"""Ctrl-D."""


class Screen:
    """What is written, on a screen that is cleared where it can be."""

    def __init__(self, file: TextIO | None = None):
        self.file = file if file is not None else sys.stdout
        self.is_terminal = self.file.isatty() and os.environ.get("TERM") != "dumb" and _understands_codes()
        self.within_a_line = False
        self.colour = self.is_terminal and not os.environ.get("NO_COLOR")

    def clear(self) -> None:
        self.write("\x1b[H\x1b[2J" if self.is_terminal else "\n")
        self.within_a_line = False

    def write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()
        self.within_a_line = not text.endswith("\n") if text else self.within_a_line

    def line(self, text: str, code: str = "") -> None:
        """A line of its own, in that colour: 1 is bold, 2 faint, 31 red, 32 green."""
        if self.within_a_line:
            self.write("\n")
        self.write(f"\x1b[{code}m{text}\x1b[0m\n" if code and self.colour else f"{text}\n")


def _understands_codes() -> bool:
    """Everywhere; in a console of Windows, from when it has been told to."""
    if sys.platform == "win32":
        os.system("")
    return True


@contextlib.contextmanager
def keys(tell: Callable[[str], object]) -> Iterator[bool]:
    """Tell of each key as it is pressed, from a thread. Gives whether there are keys."""
    if not _has_keys():
        yield False
    elif sys.platform == "win32":
        _listen(_windows_key, tell)
        yield True
    else:
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        tty.setcbreak(terminal)
        try:
            _listen(lambda: os.read(terminal, 1).decode("latin-1"), tell)
            yield True
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _has_keys() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()  # in the background (`&`) whoever reads is stopped
    except OSError:
        return True  # not a terminal that controls processes


def _windows_key() -> str:
    import msvcrt

    pressed: str = msvcrt.getwch()  # type: ignore[attr-defined]
    return pressed


def _listen(read: Callable[[], str], tell: Callable[[str], object]) -> None:
    def listen() -> None:
        with contextlib.suppress(OSError):
            while key := read():
                tell(key)
        tell(END)  # the terminal is gone

    threading.Thread(target=listen, daemon=True).start()
