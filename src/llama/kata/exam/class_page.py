"""A page of the class: who is where, which mistakes were made, and which hints would help. It needs no other file."""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from llama.kata import hint_file
from llama.kata.exam.judging import DONE, FAILING, How, Judged, Record, versions
from llama.kata.exam.marks import checks, layers_of, mark, names, number


@dataclass(frozen=True)
class Counted:
    """Something that so many of the class share."""

    count: int
    layer: str
    text: str


def write(judged: Sequence[Judged], how: How) -> str:
    """The text of the page. What comes from a submission is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("llama.kata.exam").joinpath("class_page.html").read_text(encoding="utf-8"))
    records = [record for one in judged for record in one.records]
    layers = layers_of(judged)
    return template.render(
        assignment=how.assignment,
        layers=layers,
        judged=judged,
        names=names(judged),
        possible=number(sum(map(how.assignment.points_of, layers))),
        done={layer: sum(r.state == DONE for r in records if r.layer == layer) for layer in layers},
        mistakes=mistakes(records),
        hints=hints(records),
        mark=mark,
        checks=checks,
        number=number,
        made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        how=how,
        versions=versions(),
    )


def mistakes(records: Sequence[Record]) -> list[Counted]:
    """The bugs of the zoo that the class has made, the commonest first."""
    found = Counter((record.layer, record.bugs[0]["clause"].rstrip(".")) for record in records if record.bugs)
    return [Counted(count, layer, clause) for (layer, clause), count in found.most_common()]


def hints(records: Sequence[Record]) -> list[Counted]:
    """The hint that each of those who failed is to get next, and how many need it."""
    found: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.state == FAILING:
            found[record.layer, hint_file.read(record.layer).about([bug["name"] for bug in record.bugs])[0]] += 1
    return [Counted(count, layer, hint) for (layer, hint), count in found.most_common()]
