"""Train a small Llama on a text: the layers, the data and the schedule put to work.

text -> tokenizer -> splits -> batches -> model -> loss -> gradients -> optimizer, and at the end
the loss on all three splits, a sample, a checkpoint, a CSV and a chart. The state of the run is saved every
`save_every` steps (run_file.py) and removed when the run is finished.
"""

import hashlib
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor
from tqdm import tqdm

from llama.generation.stream import generate
from llama.machine.safe_files import check_writable
from llama.model import checkpoint
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import distributed, evaluation, profiling, run_file
from llama.training.distributed import Group
from llama.training.interruption import Stopped, signals
from llama.training.losses import Losses, draw_losses
from llama.training.options import PRESETS, Train, check, compute_dtype, flags, plain, shown
from llama.training.preparation import Prepared, build, prepare
from llama.training.run_file import Saved
from llama.training.trainer import Trainer

FREE = ("corpus", "tokenizer", "out", "save_every", "resume", "profile")
"""Flags that may be others when a run is resumed: they change nothing in it. The text and its tokens are compared."""


@dataclass(frozen=True)
class Result:
    """What a run has come to; losses in nats per token."""

    model: Llama
    train_loss: float
    validation_loss: float
    test_loss: float | None
    steps: int
    """Steps that were taken in these seconds: of a run that was resumed, not those before."""
    seconds: float


def run(config: Train) -> Result | None:
    """Train, report and write everything under `config.out`; with `config.profile` print that and return None.

    With several processes (distributed.py), only rank 0 prints and writes; the others return None.

    Raises ValueError in one sentence for a corpus, a size or a rate that cannot be used and for a run that cannot be
    resumed or would be lost, or while another process trains in the folder, and OSError for a folder, before anything
    is written; and ValueError where the loss is not finite any more. Raises Stopped after SIGINT or SIGTERM.
    """
    group = distributed.group()
    check_writable(config.out / "checkpoint")
    check(config, group)
    prepared = prepare(replace(config, device=group.device(config.device)))
    # Settled here, so that a run which goes on elsewhere is not computed in something else.
    config = replace(config, dtype="bfloat16" if compute_dtype(config) else "float32")
    if config.dropout and (composed := prepared.layers.composes):
        raise ValueError(f"train: {', '.join(composed)} of {prepared.layers.name} knows no dropout; use --dropout 0")
    if config.profile:
        _profile(config, prepared)
        return None
    with run_file.alone(config.out) if group.rank == 0 else nullcontext():
        result = _train(config, prepared, group)
    if result:
        _report(config, prepared, result)
    return result


def _train(config: Train, prepared: Prepared, group: Group) -> Result | None:
    """Begin or resume the run, and write everything; None in a process that does not write."""
    training, validation, test = prepared.splits
    begun = _begun(config, prepared)
    saved = _resumed(config, begun, prepared.tokenizer.vocab)
    model = build(config, prepared)
    if group.rank == 0:
        _say(config, prepared, model)
    losses = Losses()
    with _left_behind(config, group, losses, new=saved is None):
        with distributed.joined(group, prepared.device):
            trainer = Trainer(config, model, Windows(training, config.window), group)
            if saved:
                losses = run_file.check(config.out, saved, trainer.state(), config.steps)
                trainer.load(saved.tensors)
            started, before = time.perf_counter(), len(losses.steps)
            _fit(trainer, validation, losses, begun)
            seconds = time.perf_counter() - started
        if group.rank:
            return None
        model.eval().compute_dtype = None
        result = Result(
            model,
            # As many tokens as the validation split has: the whole training split would take eight times as long.
            train_loss=evaluation.loss(model, training[: len(validation)], config.window),
            validation_loss=losses.validation[-1][1],
            test_loss=evaluation.loss(model, test, config.window) if len(test) > 1 else None,
            steps=config.steps - before,
            seconds=seconds,
        )
        checkpoint.save(config.out / "checkpoint", model, prepared.tokenizer)
        size = f"{config.num_hidden_layers} layers, width {config.hidden_size}"
        title = f"Llama on {prepared.corpus.name}: {size}, seed {config.seed}"
        train_losses = [(number, step.loss) for number, step in enumerate(losses.steps, start=1)]
        draw_losses(config.out / "losses.png", train_losses, losses.validation, title, prepared.floor, prepared.unit)
        # The last: whatever ends the run before this, it can still be resumed. It is three times the checkpoint.
        (config.out / run_file.FILE).unlink(missing_ok=True)
    return result


def _profile(config: Train, prepared: Prepared) -> None:
    model = build(config, prepared)
    _say(config, prepared, model)
    trainer = Trainer(config, model, Windows(prepared.splits[0], config.window))
    tokens = config.batch_size * config.window
    profiling.report(lambda watch: trainer.step(0, watch), prepared.device, tokens, prepared.unit)


@contextmanager
def _left_behind(config: Train, group: Group, losses: Losses, new: bool) -> Iterator[None]:
    """When a run ends early: Ctrl-C says how to go on, and of a new one that has failed before its first step, nothing
    is left."""
    try:
        yield
    except KeyboardInterrupt:
        if not (config.out / run_file.FILE).exists():
            raise
        sentence = f"interrupted; to go on from what is saved: {_command(config, group)}"
        raise Stopped(signal.SIGINT, sentence) from None
    except Exception:  # not what ends the process, such as a signal: of that run the file is to be resumed
        if new and not losses.steps and group.rank == 0:
            run_file.forget(config.out)
        raise


def _begun(config: Train, prepared: Prepared) -> Saved:
    """The run as it is begun, still without tensors."""
    text = hashlib.sha256(prepared.corpus.text.encode()).hexdigest()
    ids = torch.cat(prepared.splits).cpu().numpy()
    return Saved(plain(config), text, {}, hashlib.sha256(ids.tobytes()).hexdigest())


def _resumed(config: Train, wanted: Saved, vocab: int) -> Saved | None:
    """The run to go on with, or None for a new one. Raises ValueError where that would mix or lose runs."""
    if not config.resume:
        if (path := config.out / run_file.FILE).exists():
            raise ValueError(
                f"train: {path} is an unfinished run; go on with --resume, delete it, or begin another elsewhere "
                "with --out"
            )
        return None
    saved = run_file.read(config.out)
    # A run that was begun before there was such a flag was begun with what is its default.
    run = {**plain(Train()), **saved.config}
    for name, value in wanted.config.items():
        if name not in FREE and (begun := run[name]) != value:
            raise ValueError(
                f"train: --{name.replace('_', '-')} is {shown(value)}, but the run in {config.out} was begun with "
                f"{shown(begun)}"
            )
    if saved.corpus != wanted.corpus:
        raise ValueError(
            f"train: the text of --corpus {config.corpus} has SHA-256 {wanted.corpus}, but the run in {config.out} was "
            f"begun with {shown(saved.config.get('corpus'))}, {shown(saved.corpus)}"
        )
    # Of a run that was begun before there were other tokens, they are the characters of the text.
    same = saved.tokens == wanted.tokens if saved.tokens else config.tokenizer == Train().tokenizer
    if not same:
        raise ValueError(
            f"train: --tokenizer {shown(config.tokenizer)}, a vocabulary of {vocab:,}, makes other tokens of the text "
            f"than {shown(run['tokenizer'])}, with which the run in {config.out} was begun"
        )
    return saved


def _fit(trainer: Trainer, validation: Int64[Tensor, "n"], losses: Losses, begun: Saved) -> None:
    """Take the steps that are missing in `losses`, and add to them; save the run at the start, now and then, and at
    the end. Raises ValueError where a loss is not finite, and Stopped when a signal has come."""
    config, model, group = trainer.config, trainer.model, trainer.group
    first = group.rank == 0

    def measure() -> None:
        if first:  # the others wait for it in their next step
            losses.validation.append((len(losses.steps), evaluation.loss(model, validation, config.window)))
            _check_finite("validation loss", losses.validation[-1][1], len(losses.steps) - 1)

    def save() -> None:
        if first:
            run_file.write(config.out, replace(begun, tensors=trainer.state()), losses)

    if not losses.validation:
        measure()
    save()
    bar = tqdm(
        initial=len(losses.steps), total=config.steps, unit="step", disable=None if first else True, file=sys.stderr
    )
    with bar, signals() as came:
        for number in range(len(losses.steps), config.steps):
            step = trainer.step(number)
            _check_finite("loss", step.loss, number)
            losses.steps.append(step)
            done = number + 1
            stop = group.largest(came[0] if came else 0, validation.device)
            if done % config.evaluate_every == 0 or done == config.steps:
                measure()
            if done % config.save_every == 0 or done == config.steps or stop:
                save()
            if first:
                bar.set_postfix(train=f"{step.loss:.3f}", validation=f"{losses.validation[-1][1]:.3f}", refresh=False)
            bar.update()
            if stop:
                group.largest(0, validation.device)  # no process ends before it is saved
                sentence = (
                    f"stopped after step {done} of {config.steps}, which is saved; to go on: {_command(config, group)}"
                )
                raise Stopped(stop, sentence)


def _command(config: Train, group: Group) -> str:
    """What has to be typed to resume the run, on each machine."""
    default = replace(PRESETS[config.preset], preset=Train.preset)
    typed = flags(plain(replace(config, resume=True)), plain(default))
    program = ["python"] if group.size == 1 else ["torchrun", "--nproc-per-node", str(group.local_size)]
    return shlex.join([*program, "-m", "llama", "train", *typed])


def _check_finite(name: str, loss: float, number: int) -> None:
    if not math.isfinite(loss):
        when = f"at step {number}; try smaller learning rates" if number >= 0 else "before the first step"
        raise ValueError(f"train: the {name} is {loss} {when}")


def _say(config: Train, prepared: Prepared, model: Llama) -> None:
    corpus, layers = prepared.corpus, prepared.layers
    count = sum(p.numel() for p in model.parameters())
    size, vocab = f"{len(corpus.text):,} characters", model.config.vocab_size
    if prepared.unit == "character":
        cut = f"{vocab} of them distinct"
    else:
        cut = f"{sum(map(len, prepared.splits)):,} tokens of a vocabulary of {vocab:,}"
    print(f"Corpus {corpus.name}: {size}, {cut}, split {config.fractions}")
    dtype = "bfloat16" if model.compute_dtype else "float32"
    by_hand = ", gradients by hand" if config.by_hand else ""
    print(f"Model: {count:,} parameters, {dtype} on {config.device}, layers of {layers.name}{by_hand}", end="")
    lacking = layers.lacking(gradients=config.by_hand)
    print(f" (from vectorized: {', '.join(lacking)})" if lacking else "")


def _report(config: Train, prepared: Prepared, result: Result) -> None:
    unit, tokens = prepared.unit, result.steps * config.batch_size * config.window
    took = f"{result.seconds:.0f} s with evaluation, {tokens / result.seconds:,.0f} {unit}s/s"
    print(f"\n{result.steps} steps in {took}")
    print(f"\nLoss in nats per {unit}, in bits per byte (and the number of {unit}s that it is like choosing among)")
    training, validation, test = prepared.splits
    rows = [
        ("train", result.train_loss, training[: len(validation)]),
        ("validation", result.validation_loss, validation),
        ("test", result.test_loss, test),
        ("entropy", prepared.floor, validation),
    ]
    for name, value, ids in rows:
        if value is not None:
            size = evaluation.predicted_bytes(prepared.tokenizer, ids)
            bits = evaluation.bits_per_byte(value, len(ids) - 1, size)
            print(f"  {name:<20} {value:.4f}   {bits:.4f}   ({math.exp(value):.2f})")
    if prepared.floor is not None:
        gap = result.validation_loss - prepared.floor
        print(f"  validation lies {gap:.4f} above the entropy of the text; nothing honest lies below it")
    sample = generate(result.model, training[None, :1], 300, temperature=0.8, seed=config.seed)
    print(f"\nA sample at temperature 0.8:\n\n{prepared.tokenizer.decode(sample[0]).strip()}\n")
    print(f"Written: {config.out / 'checkpoint'}, {config.out / 'losses.csv'}, {config.out / 'losses.png'}")
