"""The board: how far an implementation has come, layer by layer, as its last test runs left it.

    board = load("my_llama")        # or an empty one
    board.rows["rope"] = Row("failing", passed=3, failed=1, sentence="out[0, 0, 1, 2] is ...")
    board.save()
    print(board)

A run of some layers renews the rows of these layers alone. A row knows the text of the layer's file that it
speaks of: when the file has changed since, the board says so.
"""

import ast
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from llama.implementation import Implementation
from llama.kata import hint_file
from llama.layers import CHAPTER, CHAPTERS

FOLDER = Path("out") / "kata"
FIRST = ("model", "training", "writing")
"""The chapters that the kata begins with; `--chapter` asks for the others."""
FIRST_LAYERS = tuple(layer for chapter in FIRST for layer in CHAPTERS[chapter])


def unit_test(layer: str) -> str:
    """The file with the worked examples of that layer."""
    return f"tests/unit/{CHAPTER[layer]}/test_{layer}.py"


@dataclass
class Row:
    state: str
    """done or failing"""
    passed: int = 0
    failed: int = 0
    selected: int = 0
    """Tests that there are; more than passed and failed where the run stopped at the first failure."""
    sentence: str = ""
    """What the first failure says."""
    profile: str = "default"
    """With how many examples it was tested."""
    claimed: str = ""
    """What its author claims of it, where that is not everything."""
    digest: str = ""
    """SHA-256 of the layer's file and of what it imports from beside it."""
    bugs: list[str] = field(default_factory=list)
    """The bugs of the zoo that the first failure was diagnosed as: those that it cannot be told from."""
    cause: str = ""
    """What the diagnosis says: `Your output is exactly what you get when ...`"""
    strict: bool = False
    """Whether it was tested with --strict, which asks for the sentences of refusals too."""

    @property
    def of_claims(self) -> str:
        return f" (claimed: {self.claimed})" if self.claimed else ""


@dataclass
class Board:
    implementation: Implementation
    rows: dict[str, Row] = field(default_factory=dict)

    def record(self, layer: str, row: Row) -> None:
        row.digest = self._digest(layer)
        self.rows[layer] = row

    def save(self) -> None:
        path = FOLDER / file_name(self.implementation.source)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {layer: dataclasses.asdict(row) for layer, row in self.rows.items()}
        path.write_text(json.dumps({"source": self.implementation.source, "rows": rows}, indent=1))

    def state(self, layer: str) -> str:
        """done, failing, not written, changed or not run."""
        row = self.rows.get(layer)
        if layer not in self.implementation.layers or layer in self.implementation.stubs:
            return "not written"
        if row is None:
            return "not run"
        return row.state if row.digest == self._digest(layer) else "changed"

    @property
    def chapters(self) -> list[str]:
        """The chapters that it is about: those of which a layer is there, and all that the kata begins with."""
        there = {CHAPTER[layer] for layer in self.implementation.layers}
        if not there or there & set(FIRST):
            there |= set(FIRST)
        return [chapter for chapter in CHAPTERS if chapter in there]

    @property
    def layers(self) -> list[str]:
        """The layers of these chapters, in the order in which they are written."""
        return [layer for chapter in self.chapters for layer in CHAPTERS[chapter]]

    def __str__(self) -> str:
        states = {layer: self.state(layer) for layer in self.layers}
        wide = max(20, 2 + max(map(len, states)))
        lines = []
        for chapter in self.chapters:
            of_chapter = {layer: states[layer] for layer in CHAPTERS[chapter]}
            if self.chapters != list(FIRST):
                done = sum(state == "done" for state in of_chapter.values())
                lines += [f"{chapter}: {done} of {len(of_chapter)} done"]
            lines += [f"{layer:{wide}}{self._words(layer, state)}" for layer, state in of_chapter.items()]
        done = sum(state == "done" for state in states.values())
        return "\n".join([*lines, f"{done} of {len(states)} layers done. {self._next(states)}"])

    def line(self, layer: str) -> str:
        """How far that layer has come, and what to do next; of one that is done, what was learnt too."""
        states = {other: self.state(other) for other in self.layers}
        done = f"{sum(state == 'done' for state in states.values())} of {len(states)} layers are done."
        if states[layer] == "done":
            learnt = hint_file.read(layer).learnt
            row = self.rows[layer]
            return f"{layer} is done{row.of_claims}: {row.passed} tests. {learnt}\n{done} {self._next(states)}"
        if states[layer] == "failing":
            return f"{layer} is not right yet. {done} A hint: python -m llama hint {layer}"
        return f"{layer}: {states[layer]}. {done} {self._next(states)}"

    def _words(self, layer: str, state: str) -> str:
        if state == "changed":
            return "changed since it was last tested"
        if state == "done":
            row = self.rows[layer]
            profile = f", {row.profile} profile" if row.profile != "default" else ""
            return f"done{row.of_claims}      {row.passed} tests{profile}"
        if state == "failing":
            row = self.rows[layer]
            stopped = " (it stopped there)" if row.passed + row.failed < row.selected else ""
            return f"failing   {row.failed} of {max(row.selected, row.passed + row.failed)}{stopped}: {row.sentence}"
        return state

    def _next(self, states: dict[str, str]) -> str:
        name = self.implementation.source
        for state, advice in (
            ("failing", f"Next: mend {{layer}}, then pytest --impl {name} -k {{layer}}"),
            ("changed", f"Next: pytest --impl {name} -k {{layer}}"),
            ("not run", f"Next: pytest --impl {name} -k {{layer}}"),
            (
                "not written",
                f"Next: write {{layer}}; read {{unit_test}}, then pytest --impl {name} -k {{layer}}",
            ),
        ):
            if layer := next((layer for layer in states if states[layer] == state), None):
                strict = " --strict" if state == "failing" and self.rows[layer].strict else ""
                return advice.format(layer=layer, unit_test=unit_test(layer)) + strict
        if any(row.profile == "quick" for row in self.rows.values()):
            return f"Next: pytest --impl {name}, with more examples and the whole model"
        by_hand = " --by-hand" if "gradients" in self.chapters else ""
        return f"Next: python -m llama train --impl {name}{by_hand}"

    def _digest(self, layer: str) -> str:
        file = Path(self.implementation.files.get(layer, "?"))
        if not file.is_file():
            return ""
        return hashlib.sha256(b"".join(path.read_bytes() for path in _with_imports(file))).hexdigest()


def _with_imports(file: Path) -> list[Path]:
    """The file and those beside it that it imports, and that these import, in the order of their names."""
    found, new = {file}, [file]
    while new:
        try:
            tree = ast.parse(new.pop().read_bytes())
        except (SyntaxError, ValueError):
            continue  # whatever it would import
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {part for node in imports for part in (getattr(node, "module", None) or "").split(".")}
        names |= {part for node in imports for alias in node.names for part in alias.name.split(".")}
        beside = {path for name in names if (path := file.with_name(f"{name}.py")).is_file()}
        new += beside - found
        found |= beside
    return sorted(found)


def load(implementation: Implementation) -> Board:
    """What earlier runs left of it; an empty board where there were none."""
    return Board(implementation, rows(implementation.source))


def rows(source: str) -> dict[str, Row]:
    """The rows that the last runs of what is loaded from `source` left, which need not be loaded for it."""
    try:
        kept = json.loads((FOLDER / file_name(source)).read_text())
        kept = kept.get("rows", kept)  # boards of an earlier version hold the rows alone
        return {layer: Row(**row) for layer, row in kept.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}  # none yet, or one that another version wrote: the next run writes it anew


def last_source() -> str | None:
    """The folder or file whose board was written last, of those that are still there; None where there is none."""
    for path in sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            source = json.loads(path.read_text())["source"]
        except (ValueError, TypeError, KeyError):
            continue  # a board of an earlier version does not say whose it is
        if Path(source).exists():
            return str(source)
    return None


def file_name(source: str) -> str:
    """A file of its own for each place that layers are loaded from."""
    resolved = str(Path(source).resolve()) if Path(source).exists() else source
    return f"{Path(source).stem}-{hashlib.sha256(resolved.encode()).hexdigest()[:8]}.json"
