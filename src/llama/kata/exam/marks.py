"""What came of an exam, for people and for other programs: a table, JSON, JUnit's XML, a CSV file."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from llama.kata.exam.judging import DONE, FAILING, Judged, Record
from llama.layers import LAYERS
from llama.machine.printable import printable

CLAIMS = "*"
"""After `done`: of what it claims, which is not everything."""
WIDEST = 24
"""Characters of a submission's name in the table."""


def layers_of(judged: Sequence[Judged]) -> list[str]:
    """Those that were judged in any submission, in reading order."""
    found = {record.layer for one in judged for record in one.records}
    return [layer for layer in LAYERS if layer in found]


def names(judged: Sequence[Judged]) -> dict[str, str]:
    """What each submission is called: the end of its path that tells it from the others."""
    paths = [Path(one.submission) for one in judged]
    for count in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        short = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(short)) == len(set(paths)):
            break
    return {str(path): name for path, name in zip(paths, short, strict=True)} if paths else {}


def mark(record: Record | None) -> str:
    """`done`, `71%` of the checks, or what it is instead."""
    if record is None:
        return "-"
    if record.state == FAILING:
        return f"{int(100 * record.share)}%"
    return record.state + (CLAIMS if record.claimed else "")


def number(points: float) -> str:
    return f"{points:g}"


def table(judged: Sequence[Judged]) -> str:
    """A line for each submission, or for each layer where there is but one submission."""
    called = names(judged)
    records = [record for one in judged for record in one.records]
    note = f"\n{CLAIMS} of what it claims, which is not everything" if any(record.claimed for record in records) else ""
    if len(judged) == 1:
        lines = [["layer", "", "checks", "seconds", "what is wrong"]]
        lines += [[r.layer, mark(r), checks(r), f"{r.seconds or 0:.1f}", first(r)] for r in records]
        return _columns(lines) + note if records else judged[0].problem
    layers = layers_of(judged)
    lines = [["", *layers, "points", "seconds"]]
    for one in judged:
        marks = [mark(one.record(layer)) for layer in layers]
        lines.append([called[one.submission][-WIDEST:], *marks, number(one.points), f"{one.seconds:.0f}"])
    return _columns(lines) + note


def checks(record: Record) -> str:
    """`98 of 100`."""
    return f"{record.passed} of {record.asked}" if record.asked else ""


def first(record: Record) -> str:
    """The cause where it is known, else the sentence."""
    return "" if record.state == DONE else record.cause or record.sentence


def _columns(lines: list[list[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_json(judged: Sequence[Judged]) -> str:
    records = [record.as_json() for one in judged for record in one.records]
    problems = [{"submission": one.submission, "problem": one.problem} for one in judged if one.problem]
    return json.dumps({"records": records, "problems": problems}, indent=1)


def as_csv(judged: Sequence[Judged]) -> str:
    """Points, as a spreadsheet takes them: a line for each submission, a column for each layer."""
    layers = layers_of(judged)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["submission", *layers, "points"])
    for one in judged:
        found = {record.layer: number(record.points) for record in one.records}
        writer.writerow([one.submission, *(found.get(layer, "") for layer in layers), number(one.points)])
    return out.getvalue()


def as_junit(judged: Sequence[Judged]) -> str:
    """A suite for each submission, and a case for each layer."""
    root = ElementTree.Element("testsuites", name="llama exam")
    for one in judged:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=one.submission,
            tests=str(len(one.records) + bool(one.problem)),
            failures=str(sum(record.state != DONE for record in one.records)),
            errors=str(int(bool(one.problem))),
            time=f"{one.seconds:.3f}",
        )
        for record in one.records:
            case = ElementTree.SubElement(
                suite, "testcase", classname=one.submission, name=record.layer, time=f"{record.seconds or 0:.3f}"
            )
            if record.state != DONE:
                message = printable(record.sentence or record.state)
                ElementTree.SubElement(case, "failure", message=message).text = printable(record.cause)
        if one.problem:
            case = ElementTree.SubElement(suite, "testcase", classname=one.submission, name="the submission")
            ElementTree.SubElement(case, "error", message=one.problem)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
