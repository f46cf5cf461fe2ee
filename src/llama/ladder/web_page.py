"""A report of tables, pictures and samples: once as plain text, once as a page that needs no other file.

section = Section("The rungs", table=Table(("rung", "loss"), [Row(("baseline", "2.54"))]))
print(section.table)
write("out/ladder/index.html", "The ladder", ["What it is."], [section])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class Row:
    """The cells of one line; `leaks` sets it off."""

    cells: tuple[str, ...]
    leaks: bool = False


@dataclass(frozen=True)
class Table:
    """Columns by name, and rows; as a string it is set in columns, the first to the left and numbers to the right."""

    columns: tuple[str, ...]
    rows: Sequence[Row]

    def __str__(self) -> str:
        lines = [self.columns, *(row.cells for row in self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        )


@dataclass(frozen=True)
class Picture:
    """One or more drawings (svg elements) side by side, and a sentence that says what to see in them."""

    panels: Sequence[str]
    says: str


@dataclass(frozen=True)
class Entry:
    """A name with some paragraphs, and perhaps a sample of text."""

    name: str
    paragraphs: Sequence[str] = ()
    sample: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Picture] = field(default_factory=list)
    entries: Sequence[Entry] = field(default_factory=list)


def write(path: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> None:
    """Write the page; its folder is made where it is missing."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("llama.ladder").joinpath("web_page.html").read_text(encoding="utf-8"))
    page = template.render(title=title, introduction=introduction, sections=sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
