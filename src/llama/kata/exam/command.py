"""Judge the layers of others, in processes of their own.

python -m llama exam handed_in/*                                    # each a folder or a file
python -m llama exam handed_in/* --assignment week3.toml --html out/class.html --csv out/points.csv
"""

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llama.kata.exam import assignment, class_page, marks
from llama.kata.exam.assignment import Assignment
from llama.kata.exam.judging import DONE, EXAMPLES, MEMORY, TIME, How, Judged, house, judge_all
from llama.layers import LAYERS, unknown
from llama.machine.safe_files import check_writable


@dataclass
class Exam:
    """Judge layers that others have written, in processes that their code cannot leave."""

    submissions: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of layers, or .py files."""
    layers: tuple[str, ...] = ()
    """The layers that are judged; by default those of the assignment, else all that a submission defines."""
    assignment: Path | None = None
    """A TOML file with layers, points and what is forbidden."""
    time: float | None = None
    """Seconds that the calls of one layer may take; 120 by default."""
    memory: int | None = None
    """Megabytes that one layer may take; 4096 by default."""
    examples: int | None = None
    """Examples per property; 15 by default."""
    seed: int | None = None
    """Of the examples; a new one by default."""
    forbid: tuple[str, ...] = ()
    """Functions of torch that no layer may call, such as torch.nn.functional.rms_norm; fused: all ready-made layers."""
    allow: tuple[str, ...] = ()
    """Libraries that may be imported although they hold such layers, such as transformers."""
    jobs: int | None = None
    """Submissions that are judged at once; by default one for each core."""
    json: Path | None = None
    """Write a record of each layer there."""
    csv: Path | None = None
    """Write the points there, for a spreadsheet."""
    junitxml: Path | None = None
    """Write the results there, for a pipeline."""
    html: Path | None = None
    """Write a page of the class there."""


def run(exam: Exam) -> int:
    """Print a table, and write what was asked for. Gives 1 where a layer is not done, else 0.

    Raises ValueError for what cannot be meant, OSError for a file that cannot be read or written.
    """
    if sys.platform == "win32":
        raise ValueError("exam: Windows has no way to hold a process that this needs; WSL has")
    house()
    how = _how(exam)
    for submission in exam.submissions:
        if not submission.exists():
            raise ValueError(f"exam: there is no {submission}")
        if submission.is_symlink():
            raise ValueError(
                f"exam: {submission} is a link, which could lead to another's folder; give what it leads to"
            )
    outputs: list[tuple[Path | None, Callable[[Sequence[Judged]], str]]] = [
        (exam.json, marks.as_json),
        (exam.csv, marks.as_csv),
        (exam.junitxml, marks.as_junit),
        (exam.html, lambda judged: class_page.write(judged, how)),
    ]
    for path, _ in outputs:
        if path is not None:
            check_writable(path.parent)
    jobs = exam.jobs or os.cpu_count() or 1
    count = len(exam.submissions)
    print(
        f"seed {how.seed}, {how.examples} examples per property, at most {how.time:g} s and {how.memory} MB for a layer"
    )
    judged = judge_all(exam.submissions, how, jobs, lambda one: _tell(one, count))
    print(f"\n{marks.table(judged)}")
    for one in judged:
        if one.problem:
            print(f"{one.submission}: {one.problem}")
    for path, make in outputs:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(judged), encoding="utf-8")
            print(f"Written: {path}")
    return int(any(one.problem or any(record.state != DONE for record in one.records) for one in judged))


def _tell(one: Judged, count: int) -> None:
    if count > 1:
        done = sum(record.state == DONE for record in one.records)
        print(f"{one.submission}: {one.problem or f'{done} of {len(one.records)} layers done'}, {one.seconds:.0f} s")


def _how(exam: Exam) -> How:
    for layer in exam.layers:
        if layer not in LAYERS:
            raise ValueError(f"exam: {unknown(layer)}")
    for name in exam.forbid:
        assignment.check_forbidden(name, "exam: --forbid")
    if not exam.submissions:
        raise ValueError("exam: name a folder or a .py file to judge")
    given = assignment.read(exam.assignment) if exam.assignment else Assignment()
    set_by = {"layers": exam.layers} if exam.layers else {}
    given = Assignment(**vars(given) | set_by)
    time, memory = exam.time or given.time or TIME, exam.memory or given.memory or MEMORY
    examples = exam.examples or given.examples or EXAMPLES
    for name, value in (("time", exam.time), ("memory", exam.memory), ("examples", exam.examples), ("jobs", exam.jobs)):
        if value is not None and not value > 0:
            raise ValueError(f"exam: --{name} must be more than 0, got {value:g}")
    seed = exam.seed if exam.seed is not None else secrets.randbelow(2**32)
    if seed < 0:
        raise ValueError(f"exam: --seed must be 0 or more, got {seed}")
    return How(given, seed, time, memory, examples, (*given.forbidden, *exam.forbid), exam.allow)
