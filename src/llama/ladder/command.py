"""`python -m llama ladder`: climb every rung, and report."""

import sys

from tqdm import tqdm

from llama.ladder import tutorial
from llama.ladder.climb import Climb, Ladder, climb, recipe
from llama.ladder.comparison import as_large, weigh
from llama.ladder.report import Results
from llama.ladder.rungs import RUNGS, Rung
from llama.machine.safe_files import check_writable
from llama.training.options import check
from llama.training.preparation import prepare


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
    window = max(config.window, tutorial.WINDOW) if config.originals or config.weigh else config.window
    for name, split in zip(("validation", "test"), prepared.splits[1:], strict=True):
        if len(split) <= window:
            raise ValueError(
                f"ladder: a window of {window} needs {window + 1} characters, the {name} split has {len(split)}"
            )
    if config.weigh:
        as_large(config, prepared.tokenizer.vocab)
    results = Results(config, prepared)
    total = len(chosen) * len(config.seeds) * config.steps
    with tqdm(total=total, unit="step", disable=None, file=sys.stderr) as bar:
        for rung in chosen:
            bar.set_description(rung.name)
            results.climbs += [climb(config, rung, seed, prepared, bar.update) for seed in config.seeds]
        if config.originals:
            results.write()  # what is known so far is kept, whatever becomes of the rest
            bar.set_description("original")
            bar.total = (bar.total or 0) + tutorial.STEPS
            every = max(1, tutorial.STEPS // 20)
            at = {*tutorial.READ_AT, *range(every, tutorial.STEPS + 1, every)}
            splits, vocab, seed = prepared.splits, prepared.tokenizer.vocab, config.seeds[0]
            results.course = tutorial.train(splits[0], splits[1], vocab, tutorial.STEPS, at, seed, bar.update)
        if config.weigh:
            results.write()
            results.weighing = weigh(config, prepared, bar)
    results.say(results.write())
    return results.climbs


def _rung(name: str) -> Rung:
    for rung in RUNGS:
        if rung.name == name:
            return rung
    raise ValueError(f"ladder: a rung is one of {', '.join(rung.name for rung in RUNGS)}, got {name!r}")
