"""Where the processes of layers come from: it has imported torch and nothing of ours, and starts one at a time.

    python -I -c "...; import apart.zygote; apart.zygote.main(3)"

On Linux it forks: a keeper, which stays outside; within new namespaces the first process, which ends everything there
when it ends; and the worker. The keeper ends them all as soon as the judge closes its lifeline, however the judge ends.
Elsewhere it becomes the worker itself.
"""

import contextlib
import functools
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import holding
from .holding import Limits
from .worker import Worker, silence

FORKS = sys.platform == "linux"
INTERVAL = 0.25
"""Seconds between two looks at the memory of a layer's processes."""
BEFOREHAND = 2**29
"""Bytes that a process has when it begins, at most."""


def main(descriptor: int) -> None:
    """Answer requests for processes until the judge is gone."""
    import jaxtyping  # noqa: F401  # what a stub imports
    import torch
    import torch._functorch.config
    import torch.fx.experimental.symbolic_shapes  # what a gradient needs: once for all
    import torch.nn.functional

    torch.set_num_threads(1)
    torch._functorch.config.donated_buffer = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = socket.socket(fileno=descriptor)
    requests.sendall(b"ready\n")
    while True:
        body, descriptors, _, _ = socket.recv_fds(requests, 2**20, 3)
        if not body:
            return
        request = json.loads(body)
        if not FORKS:
            _work(request, descriptors, [])
            return
        keeper = os.fork()
        if not keeper:
            requests.close()
            _run(functools.partial(_keep, request, descriptors))
        for one in descriptors:
            os.close(one)
        with contextlib.suppress(ChildProcessError):  # those that have ended since
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _run(do: Any) -> None:
    """In a process that has been forked: what is left of the one that it came from is not run."""
    status = 1
    try:
        do()
        status = 0
    finally:
        os._exit(status)


def _keep(request: dict[str, Any], descriptors: list[int]) -> None:
    """Outside: wait for the end of the first process within, or for the judge to close the lifeline."""
    connection, lifeline, told = descriptors
    os.setsid()
    holding.prctl(holding.SUBREAPER, 1)
    held = holding.leave_the_others()
    first = os.fork()
    if not first:
        os.close(lifeline)
        _run(lambda: _begin(request, connection, told, held))
    os.close(connection)
    ended = os.pidfd_open(first)
    told_worker = False
    while not select.select([ended, lifeline], [], [], INTERVAL if told_worker else INTERVAL / 50)[0]:
        processes = _descendants(first)
        if processes and not told_worker:
            _tell(told, worker=processes[0])
            told_worker = True
        if sum(map(_memory, processes)) > 2**20 * request["limits"]["megabytes"] + BEFOREHAND:
            _tell(told, status="too much memory")
            break
    while True:  # what escapes from the first process by a fork becomes a child of this one
        _kill(first)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(first, signal.SIGKILL)
        try:
            os.waitpid(first, 0)
            first = _any_child()
        except ChildProcessError:
            break
        if not first:
            break
    _tell(told, gone=True)


def _tell(told: int, **what: Any) -> None:
    os.write(told, json.dumps(what).encode() + b"\n")


def _descendants(process: int) -> list[int]:
    """The processes that it has started, and that these have started."""
    found: list[int] = []
    new = [process]
    while new:
        one = new.pop()
        with contextlib.suppress(OSError):
            children = list(map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split()))
            found += children
            new += children
    return found


def _memory(process: int) -> int:
    """Bytes that it takes: of what it shares with those that it was forked from or has forked, its part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((2**10 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _any_child() -> int:
    """A process that has been orphaned; 0 where there is none. In a namespace of processes there never is one."""
    return next(iter(_descendants(os.getpid())), 0)


def _begin(request: dict[str, Any], connection: int, told: int, held: list[str]) -> None:
    """The first process within: it starts the worker, says how that ended, and takes everything else with it."""
    os.setsid()
    holding.prctl(holding.KILLED_WITH_PARENT, signal.SIGKILL)
    if held:
        held = held + holding.private_folders(request["temporary"])
    worker = os.fork()
    if not worker:
        os.close(told)
        _run(lambda: _work(request, [connection], held))
    holding.prctl(holding.DUMPABLE, 0)  # not before: the keeper may look at the worker's memory
    os.close(connection)
    while True:
        process, status = os.waitpid(-1, 0)
        if process == worker:
            break
    _tell(told, status=os.waitstatus_to_exitcode(status))


def _work(request: dict[str, Any], descriptors: list[int], held: list[str]) -> None:
    connection = socket.socket(fileno=descriptors[0])
    silence()
    os.environ["HOME"] = os.environ["TMPDIR"] = request["temporary"]
    os.chdir(request["temporary"])
    sys.path.insert(0, request["package"])
    _refuse_imports(request["refused"])
    readable = request["readable"] + (["/proc"] if holding.OWN_PROC in held else [])
    held = held + holding.hold(
        Limits(**request["limits"]),
        readable,
        request["listed"],
        request["writable"],
        request["hidden"],
        among_others=holding.NO_OTHERS not in held,
    )
    Worker(connection, request["most"], held).run()


def _refuse_imports(names: list[str]) -> None:
    """These are not installed, as far as anyone can see: a library that looks for another goes on without it."""
    sys.modules |= dict.fromkeys(names)  # type: ignore[arg-type]
