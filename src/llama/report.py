"""What the ladder reports: a table, and a page with pictures and samples."""

import json
import math
import sys
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from tqdm import tqdm

from llama import evaluation, original, page
from llama.files import check_writable
from llama.ladder import LEAK_WINDOWS, RUNGS, Climb, Ladder, Rung, climb, recipe
from llama.page import Entry, Picture, Row, Section, Table
from llama.pictures import pictures
from llama.plots import parting
from llama.train import Prepared, check, prepare
from llama.weigh import WHOLE, Weighed, Weighing, weigh

COLUMNS = (
    "rung",
    "parameters",
    "train",
    "validation",
    "test",
    "prefix only",
    "leak",
    "choosing among",
    "tokens/s",
)
LEGEND = (
    "Prefix only: the validation loss when each position is computed from its own prefix alone. Leak: the parallel "
    f"loss minus that, measured on windows all over the split; beyond {evaluation.ROUNDING:.0e}, which is rounding, "
    "the model reads the future. Choosing among: the number of characters among which one would have to guess evenly "
    "for the prefix-only loss, e to its power. Losses are means over whole splits, but that of training is taken over "
    "as much text as the validation split has; what follows ± is the standard deviation over the seeds."
)


def run(config: Ladder) -> list[Climb]:
    """Climb every rung, print the table and write the page and the numbers.

    Raises ValueError or OSError in one sentence for whatever cannot be used, before anything is trained or written.
    """
    chosen = [_rung(name) for name in config.rungs]
    if not chosen or not config.seeds:
        raise ValueError("ladder: at least one rung and one seed are needed")
    for name, values in (("rung", config.rungs), ("seed", config.seeds)):
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            raise ValueError(f"ladder: a {name} counts once, got {twice[0]} twice")
    if config.weigh < 0:
        raise ValueError(f"ladder: weigh must not be negative, got {config.weigh}")
    check_writable(config.out)
    for rung in chosen:
        for seed in config.seeds:
            check(recipe(config, rung, seed))
    prepared = prepare(recipe(config, chosen[0], config.seeds[0]))
    # Where the leak is measured, and where the tutorial's model is.
    window = max(config.window, original.WINDOW) if config.originals or config.weigh else config.window
    for name, split in zip(("validation", "test"), prepared.splits[1:], strict=True):
        if len(split) <= window:
            raise ValueError(
                f"ladder: a window of {window} needs {window + 1} characters, the {name} split has {len(split)}"
            )
    climbs, course, weighing = [], None, None
    total = len(chosen) * len(config.seeds) * config.steps
    with tqdm(total=total, unit="step", disable=None, file=sys.stderr) as bar:
        for rung in chosen:
            bar.set_description(rung.name)
            climbs += [climb(config, rung, seed, prepared, bar.update) for seed in config.seeds]
        if config.originals:
            bar.set_description("original")
            bar.total = (bar.total or 0) + original.STEPS
            training, validation, _ = prepared.splits
            every = max(1, original.STEPS // 20)
            at = {*original.READ_AT, *range(every, original.STEPS + 1, every)}
            course = original.train(
                training, validation, prepared.tokenizer.vocab, original.STEPS, at, config.seeds[0], bar.update
            )
        if config.weigh:
            weighing = weigh(config, prepared, bar)
    _report(config, climbs, prepared, course, weighing)
    return climbs


def _rung(name: str) -> Rung:
    for rung in RUNGS:
        if rung.name == name:
            return rung
    raise ValueError(f"ladder: a rung is one of {', '.join(rung.name for rung in RUNGS)}, got {name!r}")


def _report(
    config: Ladder,
    climbs: Sequence[Climb],
    prepared: Prepared,
    course: original.Course | None,
    weighing: Weighing | None,
) -> None:
    """Print the tables; write index.html and ladder.json."""
    corpus = prepared.corpus
    seeds = f"seed{'s' if len(config.seeds) > 1 else ''} {', '.join(map(str, config.seeds))}"
    setting = f"{config.steps} steps of {config.batch_size} windows of {config.window} characters, {seeds}"
    introduction = (
        "From a model that one can trust at sight to Llama, one change at a time. Every rung was trained on the same "
        f"batches of {corpus.name}: {setting}, by the layers of {prepared.layers.name}."
    )
    floor = f" The entropy of the text is {corpus.floor:.4f}: nothing honest lies below it." if corpus.floor else ""
    leaking = [rung.name for rung in dict.fromkeys(c.rung for c in climbs if c.leak.is_there)]
    caught = f" These read the future: {', '.join(leaking)}." if leaking else ""
    sections = [
        Section("The rungs", [LEGEND + floor + caught], rungs_table(climbs)),
        Section("What to see", figures=pictures(config, climbs, prepared)),
        Section("Rung by rung", entries=[_entry(c) for c in climbs if c.seed == config.seeds[0]]),
    ]
    if course is not None:
        sections.append(_originals_section(course, prepared, config.seeds[0]))
    if weighing is not None:
        sections += _weighed_sections(weighing, setting)

    print(f"\nCorpus {corpus.name}: {setting}; losses in nats per character\nLayers of {prepared.layers.name}")
    for section in sections:
        if section.table is not None:
            print("", section.title, str(section.table), *section.paragraphs, sep="\n\n")
    page.write(config.out / "index.html", "The ladder from a baseline to Llama", [introduction], sections)
    numbers = {
        "rungs": [_numbers(c) for c in climbs],
        "original": [r._asdict() for r in course.readings] if course else None,
        "weighed": _weighed_numbers(weighing) if weighing else None,
    }
    (config.out / "ladder.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    print(f"\nWritten: {config.out / 'index.html'}, {config.out / 'ladder.json'}")


def _originals_section(course: original.Course, prepared: Prepared, seed: int) -> Section:
    """The original's losses as it reports them, and from prefixes alone."""
    readings = course.readings
    rows = [
        Row((f"{r.step:,}", f"{r.train:.3f}", f"{r.validation:.3f}", f"{r.prefix:.3f}"))
        for r in readings
        if r.step in original.READ_AT
    ]
    untrained = original.untrained(prepared.tokenizer.vocab, seed).to(prepared.device)
    leak = evaluation.leak(untrained, evaluation.spread(prepared.splits[1], original.WINDOW, LEAK_WINDOWS))
    drawn = parting([r.step for r in readings], [r.validation for r in readings], [r.prefix for r in readings])
    return Section(
        "The tutorial's last model, as it was",
        [
            "Llama from scratch ends with a model whose norm is taken over a whole sequence, so that each position "
            "carries something of those after it. Trained as it was, its validation loss falls and falls; computed "
            "from prefixes alone it falls, and then rises.",
            "No training is needed to find this out: before the first step its parallel loss is "
            f"{leak.parallel:.4f} and its prefix-only loss {leak.prefix:.4f}, where a model "
            "that keeps to the past has the same twice.",
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
        leak = max((c.leak.difference for c in same), key=abs)
        cells = (
            rung.name,
            f"{same[0].parameters:,}",
            *map(with_spread, losses),
            f"{leak:+.1e}" if abs(leak) <= evaluation.ROUNDING else f"{leak:+.3f}",
            f"{math.exp(mean(losses[-1])):.1f}",
            f"{mean(c.tokens_per_second for c in same):,.0f}",
        )
        rows.append(Row(cells, leaks=any(c.leak.is_there for c in same)))
    return Table(COLUMNS, rows)


def with_spread(values: Sequence[float], sign: str = "") -> str:
    """The mean, and the standard deviation where there are several."""
    return f"{mean(values):{sign}.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _weighed_sections(weighing: Weighing, setting: str) -> list[Section]:
    """The best model beside the tutorial's, and what is lost without each part of the best rung."""
    rows: list[Row] = []
    for name, results in (("the tutorial's", weighing.original), ("best", weighing.best)):
        cells = (
            f"{results[0].parameters:,}",
            f"{mean(r.steps for r in results):,.0f}",
            f"{mean(r.seconds for r in results):.0f} s",
            with_spread([r.reported for r in results]),
            with_spread([r.prefix for r in results]),
        )
        rows.append(Row((name, *cells), leaks=_leaks(results)))
    against = Section(
        "The last model weighed against the tutorial's",
        [
            f"The same text, windows of {original.WINDOW} characters, {original.BATCH} of them in a batch, as many "
            "seconds of training, and no more parameters. The loss of the test split as each model reports it, from "
            "one pass over each window, and from prefixes alone."
        ],
        Table(("model", "parameters", "steps", "training", "test as reported", "prefix only"), rows),
    )
    whole = weighing.without[WHOLE]
    taken: list[Row] = []
    for rung, results in weighing.without.items():
        worse = [r.prefix - w.prefix for r, w in zip(results, whole, strict=True)]
        losses = (
            with_spread([r.reported for r in results]),
            with_spread([r.prefix for r in results]),
            "" if rung is WHOLE else with_spread(worse, sign="+"),
        )
        time = f"{mean(r.seconds for r in results) / mean(w.seconds for w in whole):.2f}"
        name = "nothing" if rung is WHOLE else f"{rung.name}: {rung.change}"
        taken.append(Row((name, *losses, time), leaks=_leaks(results)))
    parts = Section(
        "The best rung with one part taken back at a time",
        [
            f"Each trained as the best rung was: {setting}. The loss of the test split; worse by: how much higher the "
            "prefix-only loss is than with nothing taken back, from the same seed; time: that of the steps, where 1 is "
            "that of the best rung. What a part is worth in so short a training need not be what it is worth in a long "
            "one."
        ],
        Table(("taken back", "test as reported", "prefix only", "worse by", "time"), taken),
    )
    return [against, parts]


def _leaks(results: Sequence[Weighed]) -> bool:
    return any(not abs(r.reported - r.prefix) <= evaluation.ROUNDING for r in results)


def _weighed_numbers(weighing: Weighing) -> dict[str, Any]:
    without = {rung.name: [r._asdict() for r in results] for rung, results in weighing.without.items()}
    original, best = ([r._asdict() for r in results] for results in (weighing.original, weighing.best))
    return {"original": original, "best": best, "without": without}


def _numbers(climb: Climb) -> dict[str, Any]:
    return {
        "rung": climb.rung.name,
        "seed": climb.seed,
        "parameters": climb.parameters,
        "train_loss": climb.train_loss,
        "validation_loss": climb.validation_loss,
        "test_loss": climb.test_loss,
        "prefix_loss": climb.prefix_loss,
        "leak": climb.leak.difference,
        "tokens_per_second": climb.tokens_per_second,
        "sample": climb.sample,
        "losses": climb.losses,
    }


def _entry(climb: Climb) -> Entry:
    return Entry(climb.rung.name, [climb.rung.change, climb.rung.see], climb.sample)
