"""Python programs in processes of their own, started from one that has imported torch already.

    done = run("-m", "llama", "generate", "--top-q", "1")
    assert done.returncode == 2

This is `subprocess.run([sys.executable, *arguments])` with captured output, without the two seconds that torch takes to
be imported, in a suite that starts some thirty programs. On Linux a server of multiprocessing imports it once and forks
for each program. Elsewhere, where Windows cannot fork and Apple's libraries do not survive it, a program begins anew.

The server imports nothing of this project: a program imports it itself, under hooks of its own.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

IMPORTED = ["torch", "numpy", "pytest", "sympy", "matplotlib.figure", "beartype"]
"""What most programs need, and no plugin of pytest: pytest wants to import these itself."""

if sys.platform == "linux":
    CONTEXT = multiprocessing.get_context("forkserver")
    CONTEXT.set_forkserver_preload(IMPORTED)
else:
    CONTEXT = multiprocessing.get_context("spawn")
STARTING_OR_ENDING = threading.Lock()
"""multiprocessing looks after all of its processes whenever it starts one; two threads would both take an exit code."""


def run(*arguments: str, cwd: str | Path | None = None, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """What follows `python` on a command line: `-m` and a module, `-c` and a program, or the path of one."""
    with tempfile.TemporaryDirectory(prefix="llama-kata-") as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        place, environment = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
        process = CONTEXT.Process(target=_program, args=(arguments, place, environment, *map(str, outputs)))
        with STARTING_OR_ENDING:
            process.start()
        wait([process.sentinel])
        with STARTING_OR_ENDING:
            process.join()
        assert process.exitcode is not None  # it has ended
        texts = [path.read_text() for path in outputs]
    return CompletedProcess([sys.executable, *arguments], process.exitcode, *texts)


def run_cold(
    *arguments: str, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """The same as a shell starts it, with nothing imported: for what shows that this works too."""
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)


def _program(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    for number, path in enumerate((stdout, stderr), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    _threads(environment)
    try:
        _execute(*arguments)
    finally:
        # multiprocessing leaves this out before Python 3.14. Among others, folders of pytest are unlocked by it.
        atexit._run_exitfuncs()


def _threads(environment: Mapping[str, str]) -> None:
    """As many as the environment says, which torch has read when it was imported."""
    if "OMP_NUM_THREADS" in environment and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))


def _execute(first: str, *others: str) -> None:
    if first == "-m":
        module, *arguments = others
        sys.argv, sys.path[:] = [module, *arguments], [str(Path.cwd()), *sys.path]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif first == "-c":
        program, *arguments = others
        sys.argv, sys.path[:] = ["-c", *arguments], ["", *sys.path]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(program, vars(main))
    else:
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")
