"""How far a folder has come, as JSON: what the last runs of its tests have left.

python -m llama report my_llama
"""

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import tyro

from llama import implementation
from llama.kata import board
from llama.kata.board import Board, Row


@dataclass
class Report:
    """Print how far a folder has come, as JSON."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Where the layers stand, a folder or a .py file; by default what was tested last."""


def run(report: Report) -> None:
    """Raises ValueError where there is nothing of that name."""
    source = str(report.folder) if report.folder is not None else board.last_source()
    if source is None:
        raise ValueError("report: say which folder, as in python -m llama report my_llama")
    print(json.dumps(of(board.load(implementation.load(source))), indent=1))


def of(shown: Board) -> dict[str, Any]:
    """The fields that docs/exam.md lists."""
    layers = {layer: _row(shown, layer) for layer in shown.layers}
    return {
        "source": shown.implementation.source,
        "done": sum(row["state"] == "done" for row in layers.values()),
        "of": len(layers),
        "layers": layers,
        "llama-kata": metadata.version("llama-kata"),
    }


def _row(shown: Board, layer: str) -> dict[str, Any]:
    state = shown.state(layer)
    row = shown.rows.get(layer) if state in ("done", "failing") else None
    row = row or Row(state)
    return {
        "state": state,
        "passed": row.passed,
        "failed": row.failed,
        "selected": row.selected,
        "sentence": row.sentence,
        "cause": row.cause,
        "bugs": row.bugs,
        "claimed": row.claimed,
        "profile": row.profile,
        "strict": row.strict,
    }
