"""The judge's side of the process of one layer: starts it, asks it, and ends it.

with Zygote() as zygote:
    child = zygote.start(submission, "rms_norm", Limits(seconds=60), forbidden=[])
    answer = child.ask({"do": "call", ...}, args)
    child.end()
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama.model.config import LlamaConfig
from tests.judge.apart.forbidden import named_in, names_of
from tests.judge.apart.holding import Limits
from tests.judge.apart.wire import Closed, Message, Mirror, Trees, receive, send
from tests.judge.guards.endings import Refused
from tests.judge.remote import answers
from tests.judge.remote.answers import text
from tests.judge.remote.files import DEVICES, LIBRARIES, SYSTEM, copied, python_without
from tests.judge.remote.package import SOURCE, everything, stand_in

JUDGE = Path(__file__).parents[1]
HOUSE = JUDGE.parents[1]
START = f"""
import sys
sys.path.insert(0, {str(JUDGE)!r})
import apart.zygote
del sys.path[0]
apart.zygote.main(int(sys.argv[1]))
"""
PATIENT = 9
"""So many times the limit may a layer wait for a core, besides."""
PATIENCE = 5.0
"""Seconds until a process that has ended must have said how."""


class Zygote:
    """The process that the others come from. It is started at once, and waited for when the first is needed."""

    def __init__(self, allowed: Sequence[str] = (), withholding: bool = True):
        self.refused = [name for name in LIBRARIES if name not in allowed]
        self.python = python_without(self.refused)
        self.withholding = withholding
        """Whether a layer finds no more of our package than what is beneath it."""
        self.folder = Path(tempfile.mkdtemp(prefix="llama-kata-apart-"))
        self.folder.chmod(0o711)  # a user of its own must pass through
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment | {"HOME": str(self.folder), "TMPDIR": str(self.folder)},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._ready = False

    def start(self, source: Path, layer: str, limits: Limits, forbidden: Sequence[str] = ()) -> "Child":
        """A process for that layer of a folder or file, which it gets a copy of."""
        if not self._ready:
            if self._requests.recv(16) != b"ready\n":
                raise RuntimeError("the process that the layers come from has not started")
            self._ready = True
        self._count += 1
        box = self.folder / str(self._count)
        copy, package, temporary = box / "submission", box / "package", box / "temporary"
        for place in (copy, package, temporary):
            place.mkdir(parents=True)
        temporary.chmod(0o1777)
        file = copied(source, copy)
        if self.withholding:
            stand_in(layer, package)
        else:
            everything(package)
        ours, connection = socket.socketpair()
        lifeline, its_lifeline = socket.socketpair()
        told, tell = os.pipe()
        request = {
            "temporary": str(temporary),
            "package": str(package),
            "readable": [*self.python, *SYSTEM, str(box), *DEVICES],
            "listed": [sys.prefix, sys.base_prefix],
            "writable": [str(temporary), "/dev/null"],
            "hidden": [str(SOURCE), *(str(HOUSE / room) for room in ("tests", "src", "benchmarks", "docs", ".git"))],
            "refused": self.refused,
            "limits": {"seconds": limits.seconds, "megabytes": limits.megabytes},
            "most": 2**20 * limits.megabytes,
        }
        socket.send_fds(
            self._requests, [json.dumps(request).encode()], [connection.fileno(), its_lifeline.fileno(), tell]
        )
        for one in (connection, its_lifeline):
            one.close()
        os.close(tell)
        child = Child(layer, source, ours, lifeline, told, limits, box, names_of(forbidden))
        child.load(file)
        if sys.platform != "linux":
            self._start()  # the next; this one has become the layer's
        return child

    def end(self) -> None:
        """End it, and delete what was written."""
        self._requests.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Child:
    """One layer's process. Once it has ended, each question is Refused with the reason."""

    def __init__(
        self,
        layer: str,
        source: Path,
        connection: socket.socket,
        lifeline: socket.socket,
        told: int,
        limits: Limits,
        box: Path,
        forbidden: list[str],
    ):
        self.layer, self.source, self.limits, self.forbidden, self.box = layer, source, limits, forbidden, box
        self.mirror = Mirror(first=0, weak=True)
        self.trees = Trees(self.mirror, LlamaConfig)
        self.info: Message = {}
        self.seconds = 0.0
        """That it has taken until now."""
        self.over = ""
        """Why it has ended."""
        self._connection, self._lifeline, self._told = connection, lifeline, told
        self._sending, self._reading, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._asked: set[int] = set()
        self._answers: dict[int, tuple[Message, list[Tensor]]] = {}
        self._process: int | None = None if sys.platform == "linux" else 0
        self._graphs: list[int] = []
        self._threads: dict[int, int] = {}
        self._count = 0

    def load(self, file: Path) -> None:
        """Import the layer, and learn what it is; where that fails, `info` says why."""
        own = file if file.is_file() else file / f"{self.layer}.py"
        try:
            source = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
            for name, line in named_in(source, self.forbidden).items():
                raise Refused(f"{own.name}, line {line} names {name}, which is forbidden")
            message = {"do": "load", "source": str(file), "layer": self.layer, "forbidden": self.forbidden}
            answer, _ = self.ask(message)
            if "failed" in answer:
                raise Refused(self.original(answer.get("text", "")) or f"the layer ended {text(answer.get('ended'))}")
            if "info" not in answer:
                raise Refused(f"the process of {self.layer} does not say what it has loaded")
            self.info = answer["info"]
            self.info["unloaded"] = self.original(self.info["unloaded"])
        except Refused as refused:
            self.info = {"unloaded": str(refused), "file": str(file), "names": [], "held": []}

    def ask(self, message: Message, arguments: Any = None) -> tuple[Message, list[Tensor]]:
        """Send a message, and wait for the answer to it, and its tensors, which are held by nobody else.

        Raises Refused where none came, or no right one.
        """
        if self.over:
            raise Refused(self.over)
        began = time.monotonic()
        try:
            with self._sending:
                number = self._send(message, arguments)
            return self._answer(number, began)
        except TimeoutError:
            self._end(f"{self.layer} was stopped: its calls have taken more than {self.limits.seconds:g} seconds")
        except Closed:
            self._end("")
        except Exception as error:  # there is nothing that what comes from there could not bring about
            self._forged(error)
        finally:
            self.seconds += time.monotonic() - began
        raise Refused(self.over)

    def _send(self, message: Message, arguments: Any) -> int:
        with self.mirror.lock:
            self._count += 1
            beginning, contents = self.mirror.outgoing()
            graphs, self._graphs = self._graphs, []
            whole = message | beginning | {"id": self._count, "thread": self._thread(), "graphs": graphs}
            whole["args"] = self.trees.pack(arguments, whole, contents)
            self._asked.add(self._count)
            send(self._connection, whole, contents)
            return self._count

    def _thread(self) -> int:
        if threading.current_thread() is threading.main_thread():
            return 0
        return self._threads.setdefault(threading.get_ident(), len(self._threads) + 1)

    def _answer(self, number: int, began: float) -> tuple[Message, list[Tensor]]:
        """Whoever waits reads for all who wait."""
        while True:
            with self._reading:
                if number in self._answers:
                    return self._answers.pop(number)
                if self.over:
                    raise Closed
                most = 2**20 * self.limits.megabytes
                answer, contents = receive(self._connection, most, lambda: self._left(began))
                answers.check(answer, self._asked)
                self._asked.discard(answer["id"])
                with self.mirror.lock:
                    tensors = self.mirror.take(answer, contents, as_arguments=False)
                self._answers[answer["id"]] = answer, tensors

    def _left(self, began: float) -> float:
        """Seconds that are left to it. That it had to wait for a core does not count: others may be to blame."""
        left = self.limits.seconds - self.seconds - (time.monotonic() - began)
        return left if left > 0 else left + min(self._waited(), PATIENT * self.limits.seconds)

    def _waited(self) -> float:
        """Seconds that it could have computed and was not let, as Linux counts them."""
        if self._process is None:
            self._process = _first_line_of(self._told).get("worker", 0)
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self._process}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    def understand(self, make: Callable[[], Any]) -> Any:
        """What an answer says. Raises Refused where that is nothing."""
        try:
            return make()
        except Exception as error:
            self._forged(error)
            raise Refused(self.over) from None

    def _forged(self, error: Exception) -> None:
        self._end(f"the process of {self.layer} has answered with what is no answer ({type(error).__name__})")

    def original(self, said: str) -> str:
        """A text of that process, with the paths of the submission and not of its copy."""
        said = re.sub(r"import of (\S+) halted; None in sys.modules", r"\1 may not be imported here", said)
        folder = self.source if self.source.is_dir() else self.source.parent
        return text(said.replace(str(self.box / "submission"), str(folder)))

    def forget_graph(self, graph: int) -> None:
        self._graphs.append(graph)

    def _end(self, reason: str) -> None:
        """Take it away with all that it has started; without a reason, it has ended by itself, and is asked how."""
        with self._ending:
            if self.over:
                return
            with contextlib.suppress(OSError):
                self._connection.close()
            told = {} if reason else _first_line_of(self._told) | _first_line_of(self._told)
            self._lifeline.close()
            with os.fdopen(self._told, "rb") as rest:  # until all of it is gone
                for line in rest.read().splitlines():
                    told = json.loads(line) | told
            self.over = reason or f"the process of {self.layer} has ended: {_words(told.get('status'))}"
            shutil.rmtree(self.box, ignore_errors=True)

    def end(self) -> None:
        if not self.over:
            self._end(f"the process of {self.layer} has ended: its tests are over")


def _first_line_of(told: int) -> Message:
    """The next thing that the keeper has to say."""
    line = b""
    while not line.endswith(b"\n") and select.select([told], [], [], PATIENCE)[0] and (byte := os.read(told, 1)):
        line += byte
    found: Message = json.loads(line) if line else {}
    return found


def _words(status: int | str | None) -> str:
    if isinstance(status, str):
        return status
    if status is None or status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        known = {signal.SIGXCPU: "too much time of the processor", signal.SIGSEGV: "a crash in C"}
        name = signal.Signals(-status)
        return known.get(name, name.name)
    return f"signal {-status}"


def modes() -> Message:
    """What surrounds a call: the judge's grad mode, autocast and so on."""
    cast = torch.is_autocast_enabled("cpu")
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": str(torch.get_autocast_dtype("cpu")).removeprefix("torch.") if cast else "",
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
