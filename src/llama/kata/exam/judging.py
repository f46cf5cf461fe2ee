"""One submission after another, each by a run of the project's tests that never imports a line of it."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import torch

import llama
from llama.kata.exam.assignment import Assignment
from llama.layers import LAYERS
from llama.machine.printable import printable

INSTALLED = Path(llama.__file__).parents[2]
"""The project's folder, where it is installed from there (pip install -e)."""
TIME, MEMORY, EXAMPLES = 120.0, 4096, 15
"""Seconds and megabytes for one layer, and examples for each property, where nobody says."""
DONE, FAILING, MISSING = "done", "failing", "missing"
OWN = ("HYPOTHESIS_PROFILE", "LLAMA_", "PYTEST_")
"""Variables of the environment that would ask the tests for something else."""


@dataclass
class Record:
    """What came of one layer of one submission."""

    submission: str
    layer: str
    state: str
    """done, failing, not written, not loaded or missing"""
    points: float = 0
    of_points: float = 0
    checks: dict[str, list[int]] = field(default_factory=dict)
    """How many passed, and how many there were: of examples, rules and probes."""
    sentence: str = ""
    """What the first failure says."""
    cause: str = ""
    """What it comes from, as far as that is known."""
    bugs: list[dict[str, str]] = field(default_factory=list)
    """The bugs of the zoo that do the same: their names, and what they do."""
    claimed: str = ""
    seconds: float | None = None
    """That its calls have taken."""
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        return sum(passed for passed, _ in self.checks.values())

    @property
    def asked(self) -> int:
        return sum(asked for _, asked in self.checks.values())

    @property
    def share(self) -> float:
        """Of the checks, how many passed."""
        return self.passed / self.asked if self.asked else 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"done": self.state == DONE, "share": round(self.share, 4)}


@dataclass
class Judged:
    """What came of one submission."""

    submission: str
    records: list[Record]
    seconds: float
    held: list[str]
    """What the system let the processes of its layers be held by."""
    problem: str = ""
    """Why it could not be judged at all."""

    @property
    def points(self) -> float:
        return sum(record.points for record in self.records)

    def record(self, layer: str) -> Record | None:
        return next((record for record in self.records if record.layer == layer), None)


@dataclass(frozen=True)
class How:
    """How submissions are judged."""

    assignment: Assignment
    seed: int
    time: float
    memory: int
    examples: int
    forbidden: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


def house() -> Path:
    """The folder with the tests: this one, or that which the project is installed from. Raises ValueError."""
    for folder in (Path.cwd(), INSTALLED):
        if (folder / "tests" / "judge" / "remote").is_dir():
            return folder
    raise ValueError(f"exam: there are no tests in {Path.cwd()}; run it in the folder of the project")


@functools.cache
def versions() -> dict[str, str]:
    return {
        "llama-kata": metadata.version("llama-kata"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def judge_all(submissions: Sequence[Path], how: How, jobs: int, tell: Callable[[Judged], object]) -> list[Judged]:
    """All of them, in the order that they were given; `tell` hears of each as it is done."""
    with ThreadPoolExecutor(jobs) as executor:
        futures = [executor.submit(judge, submission, how) for submission in submissions]
        try:
            for future in as_completed(futures):
                tell(future.result())
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def judge(submission: Path, how: How) -> Judged:
    """One submission. Raises nothing for what is wrong with it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llama-kata-exam-") as folder:
        Path(folder).chmod(0o711)  # the users that layers run as must pass through
        path = Path(folder) / "record.json"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *_options(submission, how, path)],
            cwd=house(),
            env=inherited | {"TMPDIR": folder},  # what a run that is killed leaves behind goes with it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        whole = run.returncode in (0, 1) and path.is_file()  # all tests ran, whether they passed or not
        found = json.loads(path.read_text(encoding="utf-8")) if whole else {"layers": {}, "held": []}
        problem = "" if whole else _problem(run.stdout)
    wanted = how.assignment.layers or tuple(found["layers"])
    records = [_record(printable(str(submission)), layer, found["layers"].get(layer), how) for layer in wanted]
    return Judged(printable(str(submission)), records, time.monotonic() - began, found["held"], problem)


def _options(submission: Path, how: How, path: Path) -> Iterator[str]:
    yield from ("-q", "-p", "no:cacheprovider", "--impl", str(submission.resolve()), "--apart", "--record", str(path))
    yield from (f"--hypothesis-seed={how.seed}", f"--examples={how.examples}")
    yield from (f"--time-limit={how.time:g}", f"--memory-limit={how.memory}")
    yield from (f"--forbid={name}" for name in how.forbidden)
    yield from (f"--allow={name}" for name in how.allowed)
    yield from ("-k", " or ".join(how.assignment.layers or LAYERS))


def _problem(output: str) -> str:
    """What pytest says where it has not begun."""
    lines = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    said = lines[-1].removeprefix("ERROR: ").removeprefix("--impl ") if lines else ""
    return printable(said or f"the tests did not end: {output[-300:].strip()}")


def _record(submission: str, layer: str, found: dict[str, Any] | None, how: How) -> Record:
    record = Record(submission, layer, **found) if found else Record(submission, layer, MISSING)
    record.of_points = how.assignment.points_of(layer)
    earned = record.state == DONE and (how.assignment.claims or not record.claimed)
    record.points = record.of_points if earned else 0
    record.seed, record.versions = how.seed, versions()
    return record
