"""Kata mode: a file to write for each layer, made from that layer's own signature and contract.

python -m llama kata my_llama                 # my_llama/softmax.py, my_llama/cross_entropy.py, ...
python -m llama kata my_llama rope attention  # these two alone
python -m llama kata my_llama --chapter gradients   # the same layers backwards
python -m llama kata my_llama --status        # how far it has come; without a folder, the one that was tested last
python -m llama kata my_llama --assignment week3.toml     # the layers that a teacher has set
python -m llama kata my_llama --watch         # tests a layer whenever its file is saved
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llama import implementation
from llama.kata import board
from llama.kata.board import FIRST_LAYERS
from llama.kata.exam import assignment
from llama.kata.exam.assignment import Assignment
from llama.kata.stubs import stub
from llama.layers import CHAPTERS, LAYERS, unknown
from llama.machine.safe_files import check_writable


@dataclass
class Kata:
    """Write a stub for each layer that a folder lacks, or show how far the layers in it have come."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Where the layers stand; by default the folder that was tested last. Files that exist are never overwritten."""
    layers: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The layers to write stubs of; all of them by default."""
    chapter: tuple[str, ...] = ()
    """The chapters to write stubs of, such as `gradients`; by default those that the kata begins with."""
    assignment: Path | None = None
    """A TOML file that says which layers, and what they are worth."""
    status: bool = False
    """Print the board of the last test runs instead."""
    watch: bool = False
    """Then test each layer whenever its file is saved, until q is pressed."""
    time_limit: float = 60.0
    """Of --watch: seconds after which a run is stopped."""


def run(kata: Kata) -> None:
    """Write the stubs, or print the board. Raises ValueError for a layer that there is not, OSError for the folder."""
    given = assignment.read(kata.assignment) if kata.assignment else Assignment()
    for layer in kata.layers:
        if layer not in LAYERS:
            raise ValueError(f"kata: {unknown(layer)}")
    for chapter in kata.chapter:
        if chapter not in CHAPTERS:
            raise ValueError(f"kata: there is no chapter {chapter}; the chapters are {', '.join(CHAPTERS)}")
    last = board.last_source()
    if kata.folder is None and last is None:
        raise ValueError("kata: say where the layers are to stand, as in python -m llama kata my_llama")
    folder = kata.folder or Path(last or "")
    if kata.status:
        if not folder.exists():
            raise ValueError(f"kata: there is no {folder} yet; python -m llama kata {folder} writes it")
        print(board.load(implementation.load(folder)))
        return
    if folder.suffix == ".py" or folder.is_file():
        raise ValueError(f"kata: {folder} is a file, and must be a folder")
    if folder.resolve() == Path.cwd():
        raise ValueError(
            f"kata: {str(folder)!r} is where Python looks first, and llama.py there would hide the project; "
            "give another folder, such as my_llama"
        )
    if not kata.time_limit > 0:
        raise ValueError(f"kata: --time-limit must be more than 0 seconds, got {kata.time_limit:g}")
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = kata.layers or given.layers or [layer for name in kata.chapter for layer in CHAPTERS[name]] or FIRST_LAYERS
    called = "my_llama" if kata.assignment else str(folder)  # a handout gets another place
    texts = {layer: stub(layer, called, given.forbidden) for layer in wanted}
    written = [layer for layer, text in texts.items() if _write(folder / f"{layer}.py", text)]
    kept = [layer for layer in wanted if layer not in written]
    if written:
        print(f"{folder}: wrote {', '.join(f'{layer}.py' for layer in written)}")
    if kept and not kata.watch:
        print(f"{folder}: kept {', '.join(f'{layer}.py' for layer in kept)} unchanged")
    if kata.assignment:
        print(_told(given, wanted))
    first = written[0] if written else wanted[0]
    if kata.watch:
        try:
            from llama.kata.watching.watch import watch
        except ModuleNotFoundError as error:
            raise ValueError(f"kata: --watch needs {error.name}; pip install -e '.[dev]' installs it") from error
        watch(folder, kata.time_limit)
        return
    print(f"Next: write {folder / first}.py, then pytest --impl {folder} -k {first}")


def _told(given: Assignment, layers: Sequence[str]) -> str:
    """What a learner should know of an assignment."""
    worth = ", ".join(f"{layer} {given.points_of(layer):g}" for layer in layers)
    due = f", due {given.deadline}" if given.deadline else ""
    forbidden = f" Forbidden: {', '.join(given.forbidden)}." if given.forbidden else ""
    return f"{given.name or 'Assignment'}{due}. Points: {worth}.{forbidden}"


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
