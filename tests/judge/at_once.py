"""A function that several threads call at once."""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tests.cases.calls import Arguments
from tests.judge.assertions import fail

SWITCH = 1e-6
"""Seconds after which the next thread goes on, within a call too; Python's own 5 ms are many calls."""


def called_at_once(function: Callable[..., Any], calls: Sequence[Arguments], rounds: int) -> list[list[Any]]:
    """What each thread got, which makes one of these calls so many times. Fails where one raised."""
    found: list[list[Any]] = [[] for _ in calls]
    begin = threading.Barrier(len(calls))

    def run(number: int) -> None:
        args, kwargs = calls[number]
        begin.wait()
        for _ in range(rounds):
            found[number].append(function(*args, **kwargs))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if any(len(results) != rounds for results in found):
        fail("it raised where several threads call it at once")
    return found
