"""`python -m llama ladder`: climb every rung, and report."""

import sys
from dataclasses import replace

from tqdm import tqdm

from llama.ladder import tutorial
from llama.ladder.climb import Climb, Ladder, climb, llama_config, recipe, widest
from llama.ladder.comparison import as_large, weigh
from llama.ladder.report import Results
from llama.ladder.rungs import RUNGS, TOKENS, Rung
from llama.machine.safe_files import check_writable
from llama.model import weights
from llama.training.options import check
from llama.training.preparation import Prepared, in_tokens, prepare


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
    first = recipe(config, chosen[0], config.seeds[0])
    prepared = prepare(replace(first, tokenizer="characters"))
    on = {"characters": prepared}
    for rung in chosen:  # each by the name of its tokens
        if rung.tokenizer not in on:
            asked = replace(first, tokenizer=rung.tokenizer)
            on[rung.tokenizer] = in_tokens(asked, prepared.device, prepared.corpus, prepared.layers)
    # Where the leak is measured, and where the tutorial's model is.
    window = max(config.window, tutorial.WINDOW) if config.originals or config.weigh else config.window
    for of in on.values():
        for name, split in zip(("validation", "test"), of.splits[1:], strict=True):
            if len(split) <= window:
                raise ValueError(
                    f"ladder: a window of {window} needs {window + 1} {of.unit}s, the {name} split has {len(split)}"
                )
    if config.weigh:
        as_large(config, prepared.tokenizer.vocab)
    sized = {rung.name: _as_large(config, rung, prepared, on[rung.tokenizer]) for rung in chosen}
    results = Results(config, prepared)
    total = len(chosen) * len(config.seeds) * config.steps
    with tqdm(total=total, unit="step", disable=None, file=sys.stderr) as bar:
        for rung in chosen:
            bar.set_description(rung.name)
            wide, own = sized[rung.name], on[rung.tokenizer]
            results.climbs += [climb(wide, rung, seed, own, bar.update) for seed in config.seeds]
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
    rungs = {rung.name: rung for rung in (*RUNGS, TOKENS)}
    if name not in rungs:
        raise ValueError(f"ladder: a rung is one of {', '.join(rungs)}, got {name!r}")
    return rungs[name]


def _as_large(config: Ladder, rung: Rung, characters: Prepared, own: Prepared) -> Ladder:
    """The ladder with a rung on tokens as large as it is on characters. Raises ValueError where that is too small."""
    if own is characters:
        return config
    parameters = weights.count(llama_config(config, rung, characters.tokenizer.vocab))
    return widest(config, rung, own.tokenizer.vocab, parameters)
