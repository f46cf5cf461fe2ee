"""What code of others may end, besides its own call: nothing.

    with contained("the layer"):
        result = function(*args)

An error is the layer's answer and stays what it is. The end of the program or of a test becomes a Refused, in a
sentence. One process cannot prevent that C code ends it (a crash, or ctypes) or that code never returns; run the suite
as `pytest -n 1` and the first of these is a failing test.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.judge.apart.outcomes import ended

_end_process = os._exit
_interrupted = threading.Event()
_running: list[str] = []
_exit_status = 1
"""Of the run: a failure until it has ended."""


class Refused(Exception):
    """What code of others did that no layer may do, in a sentence."""


class _Exit(BaseException):
    """In place of the end of the process, so that only a call ends."""


def hold_the_process() -> None:
    """From here on os._exit ends a call and not the process, and Ctrl-C is told from a layer's KeyboardInterrupt."""
    process = os.getpid()

    def raise_instead(status: int) -> None:
        if os.getpid() != process:  # a fork ends as it should
            _end_process(status)
        if not is_running():  # a thread, or a handler at the end: with success only where there is one
            _end_process(status or _exit_status)
        raise _Exit(f"os._exit({status})")

    os._exit = raise_instead  # type: ignore[assignment]
    vars(sys.modules[os.name])["_exit"] = raise_instead
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: Any) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def release_the_process(exit_status: int) -> None:
    """At the end of the run, which may end the process."""
    global _exit_status
    _exit_status = exit_status


def is_running() -> bool:
    """Whether code of others runs."""
    return bool(_running)


@contextlib.contextmanager
def contained(what: str) -> Iterator[None]:
    """Code of others: whatever leaves it besides an error of its own becomes a Refused."""
    _running.append(what)
    try:
        yield
    except BaseException as error:
        if _interrupted.is_set() or not (end := _ended(error)):
            raise
        raise Refused(f"{what} ended {end}") from None
    finally:
        _running.pop()


def _ended(error: BaseException) -> str:
    """What this exception is the end of, and how; nothing for an error."""
    return f"the program with {error}" if isinstance(error, _Exit) else ended(error)
