"""The tests of a run, shared by two processes: a plugin of pytest, where a process can be forked.

The worked examples come first, and are left to the process that reports: what they say is said at once. Of the other
tests each process takes the next as soon as it has time. What the second has found out is told to the first.
"""

import os
import signal
import struct
import threading
import warnings
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

INDEX = struct.Struct("<I")


class Shared:
    """`examples` is the beginning of the node ids of the tests that the process that reports runs by itself."""

    def __init__(self, examples: str):
        self.examples = examples

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest says what it says otherwise
        own = [i for i, item in enumerate(session.items) if item.nodeid.startswith(self.examples)]
        others = [i for i in range(len(session.items)) if i not in own]
        queue, fill = os.pipe()
        found, tell = Pipe(duplex=False)
        alive, keep = os.pipe()
        # Before the first test: when torch has computed gradients, a fork of the process can compute none.
        with warnings.catch_warnings(action="ignore"):  # Python warns of forks where there are threads
            second = os.fork()
        if not second:
            os.close(fill)
            os.close(keep)
            threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
            _run_second(session, queue, tell)
        tell.close()
        os.close(alive)
        try:
            for i in own:
                _run(session, i)
                _stop_if_asked(session)
            os.write(fill, b"".join(map(INDEX.pack, others)))
            os.close(fill)
            more = True
            for i in _taken(queue):
                _run(session, i)
                while more and found.poll():
                    more = _report(session, found)
                _stop_if_asked(session)
            while more:
                more = _report(session, found)
                _stop_if_asked(session)
        finally:
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)
            os.close(queue)
            os.close(keep)
            found.close()
        return True


def _taken(queue: int) -> Iterator[int]:
    """The numbers in a pipe that several processes read."""
    while taken := os.read(queue, INDEX.size):
        yield INDEX.unpack(taken)[0]


def _end_with(alive: int) -> None:
    """End this process when the one that holds the other end of that pipe has ended, however that ended."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(session: pytest.Session, index: int) -> None:
    session.config.hook.pytest_runtest_protocol(item=session.items[index], nextitem=None)


def _stop_if_asked(session: pytest.Session) -> None:
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _report(session: pytest.Session, found: Connection) -> bool:
    """Report what the second process has found out. Gives False when that was all."""
    try:
        data = found.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGKILL)  # a layer has ended the second process, and would have ended this one
    if isinstance(data, BaseException):
        raise data
    if data is not None:
        hook = session.config.hook
        hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=session.config, data=data))
    return data is not None


def _run_second(session: pytest.Session, queue: int, tell: Connection) -> None:
    """Take tests until there are no more, or one has failed that is the last to be reported; and end."""
    plugins = session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(_Teller(session.config, tell))
    try:
        for i in _taken(queue):
            _run(session, i)
            _stop_if_asked(session)
    except session.Failed:
        tell.send(None)
    except BaseException as error:
        tell.send(RuntimeError(f"the second process: {type(error).__name__}: {error}"))
    else:
        tell.send(None)
    signal.pause()  # until it is killed: what is done at the end of the process is for the first to do


class _Teller:
    """A plugin of the second process."""

    def __init__(self, config: pytest.Config, tell: Connection):
        self.config, self.tell = config, tell

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tell.send(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))
