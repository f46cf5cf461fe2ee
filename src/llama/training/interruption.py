"""Ctrl-C and SIGTERM let a training step finish first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A run that was asked to stop and has been saved. `code` is what a shell expects when a signal ends a program."""

    def __init__(self, number: int, sentence: str):
        super().__init__(sentence)
        self.code = 128 + number


@contextmanager
def signals() -> Iterator[list[int]]:
    """The numbers of the signals SIGINT (Ctrl-C) and SIGTERM that have come, so that a step can be finished first.

    Each is noted once and then does what it always does: who presses Ctrl-C twice does not want to wait. One that is
    ignored stays so: a shell that starts a run in its background has it ignore the Ctrl-C that is meant for others.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone may ask for them
        yield came
        return
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
