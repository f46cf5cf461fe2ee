"""What the ladder reports: a table, and a page with pictures and samples."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from llama.ladder import tutorial, web_page
from llama.ladder.climb import LEAK_WINDOWS, Climb, Ladder
from llama.ladder.comparison import WHOLE, Weighed, Weighing
from llama.ladder.drawings import parting
from llama.ladder.pictures import pictures
from llama.ladder.web_page import Entry, Picture, Row, Section, Table
from llama.training import evaluation
from llama.training.preparation import Prepared

COLUMNS = (
    "rung",
    "parameters",
    "train",
    "validation",
    "test",
    "prefix only",
    "leak",
    "choosing among",
    "bits per byte",
    "tokens/s",
)
LEGEND = (
    "Prefix only: the validation loss when each position is computed from its own prefix alone. Leak: the parallel "
    f"loss minus that, measured on windows all over the split; beyond {evaluation.ROUNDING:.0e}, which is rounding, "
    "the model reads the future. Choosing among: the number of characters among which one would have to guess evenly "
    "for the prefix-only loss, e to its power. Bits per byte: the prefix-only loss for each byte of the text. The "
    "losses of a rung on tokens are per character too, of those that its tokens stand for. Losses are means over whole "
    "splits, but that of training is taken over as much text as the validation split has; what follows ± is the "
    "standard deviation over the seeds."
)
SEEN = (
    "What there is to see is said of the default sizes and of tinyshakespeare; after a few steps, on another text or "
    "in narrower windows it may be otherwise."
)


@dataclass
class Results:
    """What has become of a ladder so far."""

    config: Ladder
    prepared: Prepared
    climbs: list[Climb] = field(default_factory=list)
    course: tutorial.Course | None = None
    weighing: Weighing | None = None

    @property
    def setting(self) -> str:
        """How the rungs are trained."""
        c = self.config
        seeds = f"seed{'s' if len(c.seeds) > 1 else ''} {', '.join(map(str, c.seeds))}"
        return f"{c.steps} steps of {c.batch_size} windows of {c.window} characters, {seeds}"

    @property
    def composed(self) -> str:
        """What is not the learner's own where a layer is another, if anything is not."""
        layers = self.prepared.layers
        if not layers.composes:
            return ""
        of = f"{', '.join(layers.composes)} of {layers.name}"
        return (
            f" Where a layer is replaced (no mask, the maps, what is taken back), {of} would not see it: there the "
            "project's own is used."
        )

    def sections(self) -> list[Section]:
        """The page."""
        corpus, climbs = self.prepared.corpus, self.climbs
        floor = (
            f" The entropy of the text is {corpus.floor:.4f}: nothing honest lies below it."
            if corpus.floor is not None
            else ""
        )
        leaking = [rung.name for rung in dict.fromkeys(c.rung for c in climbs if c.leak.is_there)]
        caught = f" These read the future: {', '.join(leaking)}." if leaking else ""
        first = [c for c in climbs if c.seed == self.config.seeds[0]]
        sections = [
            Section("The rungs", [LEGEND + floor + caught], rungs_table(climbs)),
            Section("What to see", figures=pictures(self.config, climbs, self.prepared)),
            Section("Rung by rung", [SEEN], entries=[_entry(c) for c in first]),
        ]
        if self.course is not None:
            sections.append(originals_section(self.course, self.prepared, self.config.seeds[0]))
        if self.weighing is not None:
            sections += [against_section(self.weighing), parts_section(self.weighing, self.setting)]
        return sections

    def write(self) -> list[Section]:
        """Write index.html and ladder.json; return what stands on the page."""
        sections = self.sections()
        introduction = (
            "From a model that one can trust at sight to Llama, one change at a time. Every rung was trained on the "
            f"same batches of {self.prepared.corpus.name}: {self.setting}, by the layers of "
            f"{self.prepared.layers.name}.{self.composed}"
        )
        title = "The ladder from a baseline to Llama"
        web_page.write(self.config.out / "index.html", title, [introduction], sections)
        numbers = {
            "rungs": [_numbers(c) for c in self.climbs],
            "original": [r._asdict() for r in self.course.readings] if self.course else None,
            "weighed": _weighed_numbers(self.weighing) if self.weighing else None,
        }
        (self.config.out / "ladder.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        return sections

    def say(self, sections: Sequence[Section]) -> None:
        """Print the tables."""
        print(f"\nCorpus {self.prepared.corpus.name}: {self.setting}; losses in nats per character")
        print(f"Layers of {self.prepared.layers.name}.{self.composed}")
        for section in sections:
            if section.table is not None:
                print("", section.title, str(section.table), *section.paragraphs, sep="\n\n")
        print(f"\nWritten: {self.config.out / 'index.html'}, {self.config.out / 'ladder.json'}")


def originals_section(course: tutorial.Course, prepared: Prepared, seed: int) -> Section:
    """The original's losses as it reports them, and from prefixes alone."""
    readings, vocab = course.readings, prepared.tokenizer.vocab
    rows = [
        Row((f"{r.step:,}", f"{r.train:.3f}", f"{r.validation:.3f}", f"{r.prefix:.3f}"))
        for r in readings
        if r.step in tutorial.READ_AT
    ]
    windows = evaluation.spread(prepared.splits[1], tutorial.WINDOW - 1, LEAK_WINDOWS)
    moved = evaluation.moved_by_the_last(tutorial.untrained(vocab, seed).to(prepared.device), windows, vocab)
    drawn = parting([r.step for r in readings], [r.validation for r in readings], [r.prefix for r in readings])
    return Section(
        "The tutorial's last model, as it was",
        [
            "Llama from scratch ends with a model whose norm is taken over a whole sequence, so that each position "
            "carries something of those after it. Trained as it was, its validation loss falls and falls; computed "
            "from prefixes alone it falls, and then rises.",
            "No training is needed to find this out. Before its first step, let the last character of a window be "
            f"another: {moved:.0%} of the logits before it are then others, where a model that keeps to the past "
            "has none.",
        ],
        Table(("step", "train", "validation as reported", "prefix-only validation"), rows),
        [Picture([drawn], "One model, one training: the loss that it reports, and the loss that it has.")],
    )


def rungs_table(climbs: Sequence[Climb]) -> Table:
    """A row for each rung; with several seeds means, and the standard deviation beside each loss."""
    rows = []
    for rung in dict.fromkeys(c.rung for c in climbs):
        same = [c for c in climbs if c.rung == rung]
        losses = [[getattr(c, f"{name}_loss") for c in same] for name in ("train", "validation", "test", "prefix")]
        leak = mean(c.leak.difference for c in same)
        cells = (
            rung.name,
            f"{same[0].parameters:,}",
            *map(with_spread, losses),
            f"{leak:+.1e}" if abs(leak) <= evaluation.ROUNDING else f"{leak:+.3f}",
            f"{math.exp(mean(losses[-1])):.1f}",
            with_spread([c.bits_per_byte for c in same]),
            f"{mean(c.tokens_per_second for c in same):,.0f}",
        )
        rows.append(Row(cells, leaks=any(c.leak.is_there for c in same)))
    return Table(COLUMNS, rows)


def with_spread(values: Sequence[float], sign: str = "") -> str:
    """The mean, and the standard deviation where there are several."""
    if not all(map(math.isfinite, values)):
        return "diverged"
    return f"{mean(values):{sign}.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def against_section(weighing: Weighing) -> Section:
    """The best model beside the tutorial's."""
    of = {
        "the tutorial's": weighing.original,
        "the same, dropout off in evaluation": weighing.undropped,
        "best": weighing.best,
    }
    rows = [
        Row(
            (
                name,
                f"{results[0].parameters:,}",
                f"{mean(r.steps for r in results):,.0f}",
                f"{mean(r.seconds for r in results):.0f} s",
                *(with_spread([getattr(r, loss) for r in results]) for loss in ("reported", "prefix", "last")),
            ),
            leaks=any(r.leak.is_there for r in results),
        )
        for name, results in of.items()
    ]
    return Section(
        "The last model weighed against the tutorial's",
        [
            f"The same text, windows of {tutorial.WINDOW} characters, {tutorial.BATCH} of them in a batch, as many "
            "seconds of training, and no more parameters. The loss of the test split: as a model reports it, from one "
            "pass over each window; from prefixes alone; and of the last position of each window, before which a "
            "whole window lies, so that it is fair even to a model whose norm has never seen fewer characters. In the "
            "tutorial the dropout on the attention weights stays on in evaluation."
        ],
        Table(("model", "parameters", "steps", "training", "as reported", "prefix only", "last position"), rows),
    )


def parts_section(weighing: Weighing, setting: str) -> Section:
    """What is lost without each part of the best rung."""
    whole, rows = weighing.without[WHOLE], []
    for rung, results in weighing.without.items():
        worse = [r.prefix - w.prefix for r, w in zip(results, whole, strict=True)]
        cells = (
            "nothing" if rung is WHOLE else f"{rung.name}: {rung.change}",
            f"{results[0].parameters:,}",
            with_spread([r.reported for r in results]),
            with_spread([r.prefix for r in results]),
            "" if rung is WHOLE else with_spread(worse, sign="+"),
            f"{mean(r.seconds for r in results) / mean(w.seconds for w in whole):.2f}",
        )
        rows.append(Row(cells, leaks=any(r.leak.is_there for r in results)))
    alone = "" if len(whole) > 1 else " With one seed nothing tells what a part is worth from what chance is."
    return Section(
        "The best rung with one part taken back at a time",
        [
            f"Each trained as the best rung was: {setting}. The loss of the test split; worse by: how much higher the "
            "prefix-only loss is than with nothing taken back, from the same seed; time: that of the steps, where 1 is "
            "that of the best rung. What a part is worth in so short a training need not be what it is worth in a long "
            f"one.{alone}"
        ],
        Table(("taken back", "parameters", "as reported", "prefix only", "worse by", "time"), rows),
    )


def _weighed_numbers(weighing: Weighing) -> dict[str, Any]:
    def numbers(results: Sequence[Weighed]) -> list[dict[str, Any]]:
        rows = [r._asdict() | {"leak": r.leak.difference, "prefix": r.prefix} for r in results]
        # JSON has no NaN.
        return [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in rows]

    without = {rung.name: numbers(results) for rung, results in weighing.without.items()}
    alike = {name: numbers(getattr(weighing, name)) for name in ("original", "undropped", "best")}
    return alike | {"without": without}


def _numbers(climb: Climb) -> dict[str, Any]:
    return {
        "rung": climb.rung.name,
        "seed": climb.seed,
        "parameters": climb.parameters,
        "train_loss": climb.train_loss,
        "validation_loss": climb.validation_loss,
        "test_loss": climb.test_loss,
        "prefix_loss": climb.prefix_loss,
        "bits_per_byte": climb.bits_per_byte,
        "leak": climb.leak.difference,
        "tokens_per_second": climb.tokens_per_second,
        "sample": climb.sample,
        "losses": climb.losses,
    }


def _entry(climb: Climb) -> Entry:
    return Entry(climb.rung.name, [climb.rung.change, climb.rung.see], climb.sample)
