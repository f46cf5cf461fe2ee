"""Hints, one at a time: what a learner is told who asks before looking at the solution.

python -m llama hint rope                  # the first hint; again, the next one
python -m llama hint                       # for the layer that failed last
python -m llama hint rope --impl my_llama  # of these layers: where their last run was diagnosed, about that mistake
"""

import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llama import implementation
from llama.kata import board, hint_file
from llama.layers import LAYERS, unknown
from llama.machine.safe_files import check_writable

WIDTH = 100
"""Columns of a line at most, however wide the terminal is."""


@dataclass
class Hint:
    """Give the next hint for a layer. Where its last test was diagnosed, the hint is about that mistake."""

    layer: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="LAYER")] = None
    """The layer, such as rope; by default the first that fails."""
    impl: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The folder that it stands in, or a .py file or a dotted module; by default that which was tested last."""
    all: bool = False
    """Give all hints at once."""
    again: bool = False
    """Start over from the first hint."""


def run(hint: Hint) -> None:
    """Print the hint. Raises ValueError for a layer or an implementation that there is not."""
    if hint.layer is not None and hint.layer not in LAYERS:
        raise ValueError(f"hint: {unknown(hint.layer)}")
    source = source_of(hint.impl)
    paragraphs = next_hint(hint.layer or _failing(source), source, hint.all, hint.again)
    columns = min(shutil.get_terminal_size().columns, WIDTH)
    print("\n\n".join(textwrap.fill(text, columns, break_on_hyphens=False) for text in paragraphs))


def _failing(source: str) -> str:
    """The first layer that failed its tests when they last ran. Raises ValueError where none did."""
    rows = board.rows(source)
    failing = [layer for layer in LAYERS if layer in rows and rows[layer].state == "failing"]
    if not failing:
        raise ValueError("hint: no layer failed when it was last tested; say which, as in python -m llama hint rope")
    return failing[0]


def next_hint(layer: str, source: str, all_at_once: bool = False, again: bool = False) -> list[str]:
    """What to say to somebody who asks for a hint, in paragraphs; it is remembered which hints were given.

    `source` is what the layers are loaded from, "" for none: its board tells which mistake the hint is about.
    """
    row = board.rows(source).get(layer, board.Row("not run"))
    known = hint_file.read(layer)
    hints = known.about(row.bugs)
    given = _given(source)
    before = [] if again else given.get(layer, [])
    now = hints if all_at_once else [text for text in hints if text not in before][:1]
    _keep(source, given | {layer: [*before, *(text for text in now if text not in before)]})
    paragraphs = [f"Hint {hints.index(text) + 1} of {len(hints)}: {text}" for text in now]
    if row.state == "done":
        paragraphs.insert(0, f"{layer} passed its tests when they last ran. {known.learnt}")
    elif row.cause:
        paragraphs.insert(0, f"{layer} failed when it was last tested. {row.cause}")
    if not now:
        of = f"{layer} --impl {source}" if source else layer
        paragraphs.append(
            f"There are no more hints for {layer}. `python -m llama solution {of}` shows ours; "
            f"`python -m llama hint {of} --again` starts over."
        )
    return paragraphs


def source_of(impl: str | None) -> str:
    """What is meant by --impl: what it says, else what was tested last, else nothing (an empty string).

    Raises ValueError where there is nothing of that name. It need not be importable: a hint is for code that is not.
    """
    if impl is None:
        return board.last_source() or ""
    if not Path(impl).exists():
        implementation.load(impl)
    return impl


def _given(source: str) -> dict[str, list[str]]:
    """The hints that were given, layer by layer."""
    try:
        return dict(json.loads(_path(source).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}  # none yet, or one that is broken


def _keep(source: str, given: dict[str, list[str]]) -> None:
    path = _path(source)
    check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(given, indent=1))


def _path(source: str) -> Path:
    return board.FOLDER / "hints" / (board.file_name(source) if source else "of_no_folder.json")
