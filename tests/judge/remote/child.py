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
import socket
import subprocess
import sys
import sysconfig
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
LIBRARIES = (
    *("transformers", "diffusers", "xformers", "flash_attn", "liger_kernel", "vllm", "apex", "torchtune", "torchao"),
    *("litgpt", "unsloth", "timm", "fairseq", "lit_llama", "gpt_fast", "keras", "flax", "tensorflow", "mlx"),
    *("tinygrad", "x_transformers", "exllamav2", "llama_cpp", "ctransformers", "sglang", "optimum", "torchtitan"),
)
"""Whose layers nobody has written: they may not be imported."""
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/sys/devices/system/cpu", "/nix/store")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PATIENCE = 5.0
"""Seconds until a process that has ended must have said how."""
LARGEST_FILE = 2**20
"""Bytes of a file of Python that is judged."""


class Zygote:
    """The process that the others come from. It is started at once, and waited for when the first is needed."""

    def __init__(self, allowed: Sequence[str] = (), withholding: bool = True):
        self.refused = [name for name in LIBRARIES if name not in allowed]
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
        file = _copied(source, copy)
        if self.withholding:
            stand_in(layer, package)
        else:
            everything(package)
        ours, connection = socket.socketpair()
        lifeline, its_lifeline = socket.socketpair()
        told, tell = os.pipe()
        roots = {sys.prefix, sys.base_prefix, sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}
        request = {
            "temporary": str(temporary),
            "package": str(package),
            "readable": [*roots, *SYSTEM, str(box), *DEVICES],
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


def _copied(source: Path, into: Path) -> Path:
    """The files of Python of a submission, as plain files: no link, which could lead anywhere."""
    if source.is_dir():
        for file in sorted(source.rglob("*.py")):
            parts = file.relative_to(source).parts
            plain = not any((source.joinpath(*parts[: i + 1])).is_symlink() for i in range(len(parts)))
            if plain and file.is_file() and file.stat().st_size <= LARGEST_FILE:
                (into / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, into / file.relative_to(source))
        return into
    _copied(source.parent, into)  # what it imports from beside it
    return into / source.name


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
        self._sending, self._reading = threading.Lock(), threading.Lock()
        self._answers: dict[int, tuple[Message, list[Tensor]]] = {}
        self._graphs: list[int] = []
        self._threads: dict[int, int] = {}
        self._count = 0

    def load(self, file: Path) -> None:
        """Import the layer, and learn what it is; where that fails, `info` says why."""
        files = sorted((self.box / "submission").rglob("*.py")) if self.forbidden else []
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
        named = [name for text in texts for name in named_in(text, self.forbidden)]
        try:
            if named:
                raise Refused(f"{self.layer} names {named[0]}, which is forbidden")
            message = {"do": "load", "source": str(file), "layer": self.layer, "forbidden": self.forbidden}
            answer, _ = self.ask(message)
            if "failed" in answer:
                raise Refused(self.original(str(answer.get("text", ""))) or f"the layer ended {answer.get('ended')}")
            self.info = answer["info"]
            self.info["unloaded"] = self.original(str(self.info["unloaded"]))
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
                left = self.limits.seconds - self.seconds - (time.monotonic() - began)
                if left <= 0:
                    raise TimeoutError
                self._connection.settimeout(left)
                answer, contents = receive(self._connection, 2**20 * self.limits.megabytes)
                with self.mirror.lock:
                    tensors = self.mirror.take(answer, contents, as_arguments=False)
                self._answers[int(answer["id"])] = answer, tensors

    def understand(self, make: Callable[[], Any]) -> Any:
        """What an answer says. Raises Refused where that is nothing."""
        try:
            return make()
        except Exception as error:
            self._forged(error)
            raise Refused(self.over) from None

    def _forged(self, error: Exception) -> None:
        self._end(f"the process of {self.layer} has answered with what is no answer ({type(error).__name__})")

    def original(self, text: str) -> str:
        """A text of that process, with the paths of the submission and not of its copy."""
        text = re.sub(r"import of (\S+) halted; None in sys.modules", r"\1 may not be imported here", text)
        folder = self.source if self.source.is_dir() else self.source.parent
        return text.replace(str(self.box / "submission"), str(folder))

    def forget_graph(self, graph: int) -> None:
        self._graphs.append(graph)

    def _end(self, reason: str) -> None:
        """Take it away with all that it has started; without a reason, it has ended by itself, and is asked how."""
        with contextlib.suppress(OSError):
            self._connection.close()
        told = b""
        if not reason and select.select([self._told], [], [], PATIENCE)[0]:
            told = os.read(self._told, 2**12)
        self._lifeline.close()
        with os.fdopen(self._told, "rb") as rest:  # until all of it is gone
            told += rest.read()
        status = next((json.loads(line).get("status") for line in told.splitlines() if b"status" in line), None)
        self.over = reason or f"the process of {self.layer} has ended: {_words(status)}"
        shutil.rmtree(self.box, ignore_errors=True)

    def end(self) -> None:
        if not self.over:
            self._end(f"the process of {self.layer} has ended: its tests are over")


def _words(status: int | None) -> str:
    import signal

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
