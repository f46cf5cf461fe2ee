"""Train a small Llama on a text: the layers, the data and the schedule put to work.

text -> tokenizer -> splits -> batches -> model -> loss -> gradients -> optimizer, and at the end
the loss on all three splits, a sample, a checkpoint, a CSV and a plot.
"""

import csv
import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from llama import checkpoint, data, evaluation, generate, implementation, plots, profiling, weights
from llama.config import LlamaConfig
from llama.device import check_memory, usable
from llama.files import check_writable
from llama.implementation import Implementation
from llama.model import LanguageModel, Llama
from llama.optimizer import Optimizer
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
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What the layers compute in; the weights are float32 always."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path = Path("out/train")
    """Folder for the checkpoint, the CSV and the plot."""
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


@dataclass(frozen=True)
class Result:
    """What a run has come to; losses in nats per token."""

    model: Llama
    train_loss: float
    validation_loss: float
    test_loss: float | None
    seconds: float


def next_token_loss(
    model: LanguageModel, inputs: Int64[Tensor, "batch seq"], targets: Int64[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of a batch in at least float32, by the model's own implementation."""
    logits = model(inputs)
    return model.layers.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)


def run(config: Train) -> Result | None:
    """Train, report and write everything under `config.out`; with `config.profile` print that and return None.

    Raises ValueError in one sentence for a corpus, a size or a rate that cannot be used, and OSError for a folder,
    before anything is written.
    """
    check_writable(config.out / "checkpoint")
    device, corpus, tokenizer, splits, layers = prepare(config)
    windows = data.Windows(splits[0], config.window)
    if config.dropout and layers.composes:
        raise ValueError(f"train: {', '.join(layers.composes)} of {layers.name} knows no dropout; use --dropout 0")
    model = _model(config, tokenizer.vocab, layers).to(device)
    _say(config, corpus, model, layers)

    trainer = Trainer(config, model, windows)
    if config.profile:
        profiling.report(lambda watch: trainer.step(0, watch), device, config.batch_size * config.window)
        return None
    started = time.perf_counter()
    train_losses, validation_losses = _fit(trainer, splits[1])
    seconds = time.perf_counter() - started
    model.eval().compute_dtype = None

    result = Result(
        model,
        # As many characters as the validation split has: the whole training split would take eight times as long.
        train_loss=evaluation.loss(model, splits[0][: len(splits[1])], config.window),
        validation_loss=validation_losses[-1][1],
        test_loss=evaluation.loss(model, splits[2], config.window) if len(splits[2]) > 1 else None,
        seconds=seconds,
    )
    checkpoint.save(config.out / "checkpoint", model, tokenizer)
    title = f"Llama on {corpus.name}: {config.num_hidden_layers} layers, width {config.hidden_size}"
    plots.losses(config.out / "losses.png", train_losses, validation_losses, title, corpus.floor)
    _report(config, corpus, tokenizer, result)
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
    if corpus.notice:
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


def check(config: Train) -> None:
    """Raise ValueError for sizes and rates that mean nothing, before anything is written."""
    if not 0 <= config.dropout <= 255 / 256:
        raise ValueError(f"train: dropout must lie in 0..255/256, got {config.dropout}")
    if not config.muon_lr >= 0:
        raise ValueError(f"train: muon_lr must not be negative, got {config.muon_lr}")
    for name in ("peak_lr", "muon_lr", "weight_decay"):
        if math.isinf(getattr(config, name)):
            raise ValueError(f"train: {name} must be finite, got {getattr(config, name)}")
    for name in ("batch_size", "steps", "evaluate_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"train: {name} must be at least 1, got {getattr(config, name)}")
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"train: seed must lie in 0..2^63 - 1, got {config.seed}")
    # Our own schedule and optimizer refuse the rest, in their own sentences.
    ours, one = implementation.load("vectorized"), torch.ones(1)
    lr = ours.cosine_schedule(0, config.peak_lr, min(config.warmup_steps, config.steps), config.steps, config.min_lr)
    ours.adamw(one, one, one, one, 1, lr, (config.beta1, config.beta2), weight_decay=config.weight_decay)
    ours.clip_grad_norm([one], config.max_norm)


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
    model.compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
    return model


class Dropout:
    """Sets a part of what it is given to zero, and makes the rest larger by as much.

    What is dropped follows from the seed and the step alone, apart from what is read in that step. NumPy draws it, a
    byte per element, which is much faster than torch's own draws on a CPU.
    """

    def __init__(self, part: float, seed: int, step: int):
        self.limit = round(256 * part)
        self.random = np.random.default_rng((seed, step, 1))

    def __call__(self, x: Tensor) -> Tensor:
        drawn = np.frombuffer(self.random.bytes(x.numel()), np.uint8).reshape(x.shape)
        dropped = torch.from_numpy(drawn < self.limit).to(x.device)
        return x.masked_fill(dropped, 0.0) * (256 / (256 - self.limit))


class Step(NamedTuple):
    """What is known of a step: its learning rate, the norm of the gradient before clipping, the loss before it."""

    lr: float
    norm: float
    loss: float


class Trainer:
    """A model, its optimizer and its data: one step after another."""

    def __init__(self, config: Train, model: LanguageModel, windows: data.Windows):
        self.config, self.model, self.windows = config, model, windows
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
        if c.dropout:
            self.model.dropout = Dropout(c.dropout, c.seed, number)
        with watch("forward"):
            loss = next_token_loss(self.model, inputs, targets)
        with watch("backward"):
            loss.backward()
        with watch("optimizer"):
            norm = self.optimizer.step(lr, lr * c.muon_lr / c.peak_lr if lr else 0.0)
        return Step(lr, norm, loss.item())


def _fit(trainer: Trainer, validation: Int64[Tensor, "n"]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The losses of all steps, and those of the whole validation split with the step they were taken at."""
    config, model = trainer.config, trainer.model
    losses: list[tuple[int, float]] = []
    validation_losses = [(0, evaluation.loss(model, validation, config.window))]
    config.out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=config.steps, unit="step", disable=None, file=sys.stderr)
    with bar, (config.out / "losses.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "learning_rate", "gradient_norm", "train_loss", "validation_loss"])
        rows.writerow([0, "", "", "", validation_losses[0][1]])
        for number in range(config.steps):
            step = trainer.step(number)
            losses.append((number + 1, step.loss))
            _check_finite("loss", step.loss, number)
            measured = ""
            if (number + 1) % config.evaluate_every == 0 or number + 1 == config.steps:
                validation_losses.append((number + 1, evaluation.loss(model, validation, config.window)))
                _check_finite("validation loss", validation_losses[-1][1], number)
                measured = str(validation_losses[-1][1])
            rows.writerow([number + 1, *step, measured])
            bar.set_postfix(train=f"{step.loss:.3f}", validation=f"{validation_losses[-1][1]:.3f}", refresh=False)
            bar.update()
    return losses, validation_losses


def _check_finite(name: str, loss: float, number: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(f"train: the {name} is {loss} at step {number}; try smaller learning rates")


def _say(config: Train, corpus: data.Corpus, model: Llama, layers: Implementation) -> None:
    count = sum(p.numel() for p in model.parameters())
    size, vocab = f"{len(corpus.text):,} characters", model.config.vocab_size
    print(f"Corpus {corpus.name}: {size}, {vocab} of them distinct, split {config.fractions}")
    print(f"Model: {count:,} parameters, on {config.device}, layers of {layers.name}", end="")
    lacking = [name for name in model.layers.layers if name not in layers.layers or name in layers.stubs]
    print(f" (from vectorized: {', '.join(lacking)})" if lacking else "")


def _report(config: Train, corpus: data.Corpus, tokenizer: CharTokenizer, result: Result) -> None:
    tokens = config.steps * config.batch_size * config.window
    print(
        f"\n{config.steps} steps in {result.seconds:.0f} s with evaluation, {tokens / result.seconds:,.0f} characters/s"
    )
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
