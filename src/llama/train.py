"""Train a small Llama on a text: the layers, the data and the schedule put to work.

text -> tokenizer -> splits -> batches -> model -> loss -> gradients -> optimizer, and at the end
the loss on all three splits, a sample, a checkpoint, a CSV and a plot. Every now and then all that a run needs to go
on is saved (`runs`), and removed when it is finished.
"""

import hashlib
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from llama import checkpoint, data, distributed, evaluation, generate, implementation, plots, profiling, runs, weights
from llama.config import LlamaConfig
from llama.device import check_memory, multiplies_bfloat16, usable
from llama.distributed import Group
from llama.files import check_writable
from llama.implementation import Implementation
from llama.model import LanguageModel, Llama
from llama.optimizer import Optimizer
from llama.runs import Losses, Saved, Step
from llama.tokenizer import CharTokenizer


@dataclass(frozen=True)
class Train:
    """Train a small Llama on a text and report how well it predicts what it has not seen."""

    preset: Literal["quick", "shakespeare"] = "quick"
    """What the flags that are not given are: quick is two minutes on two cores, shakespeare the best they can do."""
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, grammar (built in, with known entropy), or the path of a text file."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Parts of the text for training, validation and test."""
    hidden_size: int = 128
    """Width of the model (d_model)."""
    num_hidden_layers: int = 4
    """Number of decoder layers."""
    num_attention_heads: int = 4
    """Number of query heads."""
    num_key_value_heads: int = 2
    """Number of key and value heads."""
    window: int = 128
    """Characters that the model sees at once."""
    batch_size: int = 16
    """Windows per step."""
    accumulate: int = 1
    """Parts that the windows of a step go through the model in, one after another: less memory, the same gradient."""
    steps: int = 1100
    """Optimizer steps."""
    peak_lr: float = 6e-3
    """Learning rate at the end of the warm-up."""
    min_lr: float = 3e-5
    """Learning rate at the end of the cosine."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon for the matrices within the layers; 0 leaves them to AdamW as well."""
    warmup_steps: int = 100
    """Steps of the warm-up."""
    weight_decay: float = 0.1
    """Decay of the matrices; norms have none."""
    beta1: float = 0.9
    """AdamW's memory of the gradient."""
    beta2: float = 0.99
    """AdamW's memory of its square."""
    max_norm: float = 1.0
    """Length that the gradient is clipped to."""
    dropout: float = 0.0
    """Part of the embeddings, and of what each block adds, that is set to zero in training, to the nearest 256th."""
    evaluate_every: int = 275
    """Steps between two passes over the whole validation split."""
    seed: int = 0
    """Seed of the weights, the batches and the sample."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the layers compute in: auto is bfloat16 where the device multiplies it. The weights are float32 always."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path = Path("out/train")
    """Folder for the checkpoint, the CSV and the plot, and for the run while it is unfinished."""
    save_every: int = 100
    """Steps between two times that the run is saved; at most so many are lost when it is killed."""
    resume: bool = False
    """Go on with the unfinished run in the folder, with the same flags; the result is the same to the last bit."""
    profile: bool = False
    """Print where the time of a step goes, and train no further."""


PRESETS = {
    "quick": Train(),
    "shakespeare": Train(
        preset="shakespeare",
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        window=256,
        batch_size=12,
        steps=2300,
        dropout=0.1,
        evaluate_every=575,
    ),
}


FREE = ("corpus", "out", "save_every", "resume", "profile")
"""Flags that may be others when a run is resumed: they change nothing in it. The text itself is compared."""


@dataclass(frozen=True)
class Result:
    """What a run has come to; losses in nats per token."""

    model: Llama
    train_loss: float
    validation_loss: float
    test_loss: float | None
    seconds: float


def next_token_loss(
    model: LanguageModel,
    inputs: Int64[Tensor, "batch seq"],
    targets: Int64[Tensor, "batch seq"],
    forward: nn.Module | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of a batch in at least float32, by the model's own implementation.

    `forward` stands in for the model where something is wrapped around it.
    """
    logits = (forward or model)(inputs)
    return model.layers.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)


def run(config: Train) -> Result | None:
    """Train, report and write everything under `config.out`; with `config.profile` print that and return None.

    Of several processes (`distributed`) the first says and writes everything, the others return None.

    Raises ValueError in one sentence for a corpus, a size or a rate that cannot be used and for a run that cannot be
    resumed or would be lost, and OSError for a folder, before anything is written; and ValueError where the loss is
    not finite any more. Raises runs.Stopped after SIGINT or SIGTERM.
    """
    group = distributed.group()
    check_writable(config.out / "checkpoint")
    check(config, group)
    device, corpus, tokenizer, splits, layers = prepare(replace(config, device=group.device(config.device)))
    # Settled here, so that a run which goes on elsewhere is not computed in something else.
    config = replace(config, dtype="bfloat16" if compute_dtype(config) else "float32")
    digest = hashlib.sha256(corpus.text.encode()).hexdigest()
    saved = None if config.profile else _resumed(config, digest)
    windows = data.Windows(splits[0], config.window)
    if config.dropout and layers.composes:
        raise ValueError(f"train: {', '.join(layers.composes)} of {layers.name} knows no dropout; use --dropout 0")
    model = _model(config, tokenizer.vocab, layers).to(device)
    if group.rank == 0:
        _say(config, corpus, model, layers)

    losses = Losses()
    with distributed.joined(group, device):
        trainer = Trainer(config, model, windows, group)
        if saved:
            losses = runs.check(config.out, saved, trainer.state(), config.steps)
            trainer.load(saved.tensors)
        if config.profile:
            profiling.report(lambda watch: trainer.step(0, watch), device, config.batch_size * config.window)
            return None
        started, before = time.perf_counter(), len(losses.steps)
        _fit(trainer, splits[1], losses, digest)
        seconds = time.perf_counter() - started
    if group.rank:
        return None
    model.eval().compute_dtype = None

    result = Result(
        model,
        # As many characters as the validation split has: the whole training split would take eight times as long.
        train_loss=evaluation.loss(model, splits[0][: len(splits[1])], config.window),
        validation_loss=losses.validation[-1][1],
        test_loss=evaluation.loss(model, splits[2], config.window) if len(splits[2]) > 1 else None,
        seconds=seconds,
    )
    checkpoint.save(config.out / "checkpoint", model, tokenizer)
    title = f"Llama on {corpus.name}: {config.num_hidden_layers} layers, width {config.hidden_size}"
    train_losses = [(number, step.loss) for number, step in enumerate(losses.steps, start=1)]
    plots.losses(config.out / "losses.png", train_losses, losses.validation, title, corpus.floor)
    _report(config, corpus, tokenizer, result, config.steps - before)
    # The last of all: whatever ends the run before this, it can still be resumed. It is three times the checkpoint.
    (config.out / runs.FILE).unlink(missing_ok=True)
    return result


class Prepared(NamedTuple):
    """What a run needs before it begins: training, validation and test split on the device, and whose layers learn."""

    device: torch.device
    corpus: data.Corpus
    tokenizer: CharTokenizer
    splits: list[Int64[Tensor, "n"]]
    layers: Implementation


def prepare(config: Train) -> Prepared:
    """The text and the layers of a run. Raises ValueError as `run` does."""
    check(config)
    device = usable(config.device)
    corpus = data.load_corpus(config.corpus)
    if corpus.notice and distributed.group().rank == 0:
        print(corpus.notice, file=sys.stderr)
    tokenizer = CharTokenizer.from_text(corpus.text)
    splits = [part.to(device) for part in data.split(tokenizer.encode(corpus.text), config.fractions)]
    data.Windows(splits[0], config.window)  # which refuses a window that does not fit
    if len(splits[1]) < 2:
        raise ValueError(f"train: the validation split has {len(splits[1])} characters, it needs at least 2")
    if device.type == "cpu":
        _check_memory(config, tokenizer.vocab)
    layers = implementation.load(config.impl)
    if layers.is_ours and layers.name == "naive":
        raise ValueError("train: the naive layers have no gradients; train with vectorized or fused")
    return Prepared(device, corpus, tokenizer, splits, layers)


def check(config: Train, group: Group = distributed.ALONE) -> None:
    """Raise ValueError for sizes and rates that mean nothing, before anything is written."""
    if not 0 <= config.dropout <= 255 / 256:
        raise ValueError(f"train: dropout must lie in 0..255/256, got {config.dropout}")
    if not config.muon_lr >= 0:
        raise ValueError(f"train: muon_lr must not be negative, got {config.muon_lr}")
    for name in ("peak_lr", "muon_lr", "weight_decay"):
        if math.isinf(getattr(config, name)):
            raise ValueError(f"train: {name} must be finite, got {getattr(config, name)}")
    for name in ("batch_size", "steps", "evaluate_every", "save_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"train: {name} must be at least 1, got {getattr(config, name)}")
    if config.accumulate < 1 or config.batch_size % config.accumulate:
        raise ValueError(f"train: accumulate must divide batch_size, got {config.accumulate} and {config.batch_size}")
    if config.batch_size % (config.accumulate * group.size):
        raise ValueError(
            f"train: accumulate times the number of processes must divide batch_size, got {config.accumulate} · "
            f"{group.size} and {config.batch_size}"
        )
    if config.profile and group.size > 1:
        raise ValueError(f"train: --profile is for one process, got {group.size}")
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"train: seed must lie in 0..2^63 - 1, got {config.seed}")
    # Our own schedule and optimizer refuse the rest, in their own sentences.
    ours, one = implementation.load("vectorized"), torch.ones(1)
    lr = ours.cosine_schedule(0, config.peak_lr, min(config.warmup_steps, config.steps), config.steps, config.min_lr)
    ours.adamw(one, one, one, one, 1, lr, (config.beta1, config.beta2), weight_decay=config.weight_decay)
    ours.clip_grad_norm([one], config.max_norm)


def _resumed(config: Train, corpus: str) -> Saved | None:
    """The run to go on with, or None for a new one. Raises ValueError where that would mix or lose runs."""
    if not config.resume:
        if (path := config.out / runs.FILE).exists():
            raise ValueError(
                f"train: {path} is an unfinished run; go on with --resume, delete it, or begin another elsewhere "
                "with --out"
            )
        return None
    saved = runs.read(config.out)
    for name, value in runs.plain(config).items():
        if name not in FREE and (begun := saved.config.get(name, "absent")) != value:
            raise ValueError(
                f"train: --{name.replace('_', '-')} is {runs.shown(value)}, but the run in {config.out} was begun with "
                f"{runs.shown(begun)}"
            )
    if saved.corpus != corpus:
        raise ValueError(
            f"train: the text of --corpus {config.corpus} has SHA-256 {corpus}, but the run in {config.out} was begun "
            f"with {runs.shown(saved.config.get('corpus'))}, {runs.shown(saved.corpus)}"
        )
    return saved


def _check_memory(config: Train, vocab: int) -> None:
    # In float32 the weights, their gradients and one moment; the tokens; what is between the layers in bfloat16.
    model = 12 * weights.count(_shape(config, vocab))
    batch = config.batch_size * config.window * (8 + 2 * config.hidden_size * config.num_hidden_layers)
    sizes = ", ".join(f"{name} {getattr(config, name)}" for name in ("hidden_size", "num_hidden_layers", "batch_size"))
    check_memory(f"train: {sizes}", model + batch)


def _shape(config: Train, vocab: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.window,
    )


def _model(config: Train, vocab: int, layers: Implementation) -> Llama:
    model = Llama(_shape(config, vocab), layers)
    model.reset_parameters(torch.Generator().manual_seed(config.seed))
    model.compute_dtype = compute_dtype(config)
    return model


def compute_dtype(config: Train) -> torch.dtype | None:
    """What the layers compute in where it is not float32."""
    auto = config.dtype == "auto" and multiplies_bfloat16(torch.device(config.device))
    return torch.bfloat16 if auto or config.dtype == "bfloat16" else None


class Dropout:
    """Sets a part of what it is given to zero, and makes the rest larger by as much.

    What is dropped follows from the seed and the step alone, apart from what is read in that step. NumPy draws it, a
    byte per element, which is much faster than torch's own draws on a CPU. It is drawn for the whole batch, of which x
    is the `place`-th of so many equal parts.
    """

    def __init__(self, part: float, seed: int, step: int, place: int = 0, places: int = 1):
        self.limit = round(256 * part)
        self.place, self.places = place, places
        self.random = np.random.default_rng((seed, step, 1))

    def __call__(self, x: Tensor) -> Tensor:
        drawn = np.frombuffer(self.random.bytes(x.numel() * self.places), np.uint8)
        drawn = drawn.reshape(self.places, *x.shape)[self.place]
        dropped = torch.from_numpy(drawn < self.limit).to(x.device)
        return x.masked_fill(dropped, 0.0) * (256 / (256 - self.limit))


class Trainer:
    """A model, its optimizer and its data: one step after another, alone or as one of a group."""

    def __init__(self, config: Train, model: LanguageModel, windows: data.Windows, group: Group = distributed.ALONE):
        self.config, self.model, self.windows, self.group = config, model, windows, group
        self.forward = group.parallel(model)
        self.optimizer = Optimizer(
            model,
            (config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            max_norm=config.max_norm,
            muon=config.muon_lr > 0,
        )

    def step(self, number: int, watch: Callable[[str], AbstractContextManager[Any]] = nullcontext) -> Step:
        """Step `number`, from 0. `watch` is entered with the name of each of its parts."""
        c = self.config
        lr = self.model.layers.cosine_schedule(number, c.peak_lr, min(c.warmup_steps, c.steps), c.steps, c.min_lr)
        with watch("data"):
            inputs, targets = self.windows.batch(c.batch_size, c.seed, number)
        total = torch.zeros((), device=inputs.device)
        places = c.accumulate * self.group.size
        for part in range(c.accumulate):
            place = part * self.group.size + self.group.rank
            if c.dropout:
                self.model.dropout = Dropout(c.dropout, c.seed, number, place, places)
            with distributed.apart(self.forward) if part + 1 < c.accumulate else nullcontext():
                with watch("forward"):
                    rows = [t.chunk(places)[place] for t in (inputs, targets)]
                    # All parts are equally large, so the mean of their means is that of the batch.
                    loss = next_token_loss(self.model, rows[0], rows[1], self.forward) / c.accumulate
                with watch("backward"):
                    loss.backward()
            total += loss.detach()
        with watch("optimizer"):
            norm = self.optimizer.step(lr, lr * c.muon_lr / c.peak_lr if lr else 0.0)
        return Step(lr, norm, self.group.mean(total).item())

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on beside its number: weights, and the optimizer's averages and count."""
        return self.model.state_dict() | self.optimizer.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of the same model: the next steps are the same to the last bit."""
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.optimizer.load(state)


def _fit(trainer: Trainer, validation: Int64[Tensor, "n"], losses: Losses, corpus: str) -> None:
    """Take the steps that are missing in `losses`, and add to them; save the run at the start, now and then, and at
    the end. Raises ValueError where a loss is not finite, and runs.Stopped when a signal has come."""
    config, model, group = trainer.config, trainer.model, trainer.group
    first = group.rank == 0

    def measure() -> None:
        if first:  # the others wait for it in their next step
            losses.validation.append((len(losses.steps), evaluation.loss(model, validation, config.window)))

    def save() -> None:
        if first:
            runs.write(config.out, Saved(runs.plain(config), corpus, trainer.state()), losses)

    if first:
        runs.clear(config.out)
    if not losses.validation:
        measure()
    save()
    bar = tqdm(
        initial=len(losses.steps), total=config.steps, unit="step", disable=None if first else True, file=sys.stderr
    )
    with bar, runs.signals() as came:
        for number in range(len(losses.steps), config.steps):
            step = trainer.step(number)
            _check_finite("loss", step.loss, number)
            losses.steps.append(step)
            done = number + 1
            stop = group.largest(came[0] if came else 0, validation.device)
            if done % config.evaluate_every == 0 or done == config.steps:
                measure()
                _check_finite("validation loss", losses.validation[-1][1], number)
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
                raise runs.Stopped(stop, sentence)


def _command(config: Train, group: Group) -> str:
    """What has to be typed to resume the run, on each machine."""
    default = replace(PRESETS[config.preset], preset=Train.preset)
    typed = runs.flags(runs.plain(replace(config, resume=True)), runs.plain(default))
    program = ["python"] if group.size == 1 else ["torchrun", "--nproc-per-node", str(group.local_size)]
    return shlex.join([*program, "-m", "llama", "train", *typed])


def _check_finite(name: str, loss: float, number: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(f"train: the {name} is {loss} at step {number}; try smaller learning rates")


def _say(config: Train, corpus: data.Corpus, model: Llama, layers: Implementation) -> None:
    count = sum(p.numel() for p in model.parameters())
    size, vocab = f"{len(corpus.text):,} characters", model.config.vocab_size
    print(f"Corpus {corpus.name}: {size}, {vocab} of them distinct, split {config.fractions}")
    dtype = "bfloat16" if model.compute_dtype else "float32"
    print(f"Model: {count:,} parameters, {dtype} on {config.device}, layers of {layers.name}", end="")
    lacking = [name for name in model.layers.layers if name not in layers.layers or name in layers.stubs]
    print(f" (from vectorized: {', '.join(lacking)})" if lacking else "")


def _report(config: Train, corpus: data.Corpus, tokenizer: CharTokenizer, result: Result, steps: int) -> None:
    tokens = steps * config.batch_size * config.window
    print(f"\n{steps} steps in {result.seconds:.0f} s with evaluation, {tokens / result.seconds:,.0f} characters/s")
    print("\nLoss in nats per character (and the number of characters that it is like choosing among)")
    rows = [("train", result.train_loss), ("validation", result.validation_loss), ("test", result.test_loss)]
    for name, value in [*rows, ("entropy", corpus.floor)]:
        if value is not None:
            print(f"  {name:<20} {value:.4f}   ({math.exp(value):.2f})")
    if corpus.floor is not None:
        gap = result.validation_loss - corpus.floor
        print(f"  validation lies {gap:.4f} above the entropy of the text; nothing honest lies below it")
    prompt = tokenizer.encode(corpus.text[0])[None].to(config.device)
    sample = generate.generate(result.model, prompt, 300, temperature=0.8, seed=config.seed)
    print(f"\nA sample at temperature 0.8:\n\n{tokenizer.decode(sample[0]).strip()}\n")
    print(f"Written: {config.out / 'checkpoint'}, {config.out / 'losses.csv'}, {config.out / 'losses.png'}")
