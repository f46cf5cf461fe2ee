"""Train a small Llama on a text: the layers, the data and the schedule put to work.

text -> tokenizer -> splits -> batches -> model -> loss -> gradients -> optimizer, and at the end
the loss on all three splits, a sample, a checkpoint, a CSV and a plot.
"""

import csv
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from llama import checkpoint, data, evaluation, generate, implementation, plots
from llama.config import LlamaConfig
from llama.device import usable
from llama.implementation import Implementation
from llama.model import Llama
from llama.optimizer import Optimizer
from llama.tokenizer import CharTokenizer


@dataclass(frozen=True)
class Train:
    """Train a small Llama on a text and report how well it predicts what it has not seen."""

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
    window: int = 64
    """Characters that the model sees at once."""
    batch_size: int = 16
    """Windows per step."""
    steps: int = 1600
    """Optimizer steps."""
    peak_lr: float = 3e-3
    """Learning rate at the end of the warm-up."""
    min_lr: float = 1e-4
    """Learning rate at the end of the cosine."""
    muon_lr: float = 0.0
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
    evaluate_every: int = 400
    """Steps between two passes over the whole validation split."""
    seed: int = 0
    """Seed of the weights, the batches and the sample."""
    impl: str = "fused"
    """Whose layers compute it: naive, vectorized, fused, a dotted module, a .py file or a folder."""
    dtype: str = "float32"
    """What the layers compute in: float32 or bfloat16. The weights are float32 always."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path = Path("out/train")
    """Folder for the checkpoint, the CSV and the plot."""


@dataclass(frozen=True)
class Result:
    """What a run has come to; losses in nats per token."""

    model: Llama
    train_loss: float
    validation_loss: float
    test_loss: float | None
    seconds: float


def next_token_loss(
    model: Llama, inputs: Int64[Tensor, "batch seq"], targets: Int64[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of a batch, by the model's own implementation."""
    return model.layers.cross_entropy(model(inputs), targets)


def run(config: Train) -> Result:
    """Train, report and write everything under `config.out`.

    Raises ValueError in one sentence for a corpus, a size or a rate that cannot be used, before anything is
    written.
    """
    for name in ("batch_size", "steps", "evaluate_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"train: {name} must be at least 1, got {getattr(config, name)}")
    if config.seed < 0:
        raise ValueError(f"train: seed must not be negative, got {config.seed}")
    device = usable(config.device)
    corpus = data.load_corpus(config.corpus)
    if corpus.notice:
        print(corpus.notice, file=sys.stderr)
    tokenizer = CharTokenizer.from_text(corpus.text)
    splits = [part.to(device) for part in data.split(tokenizer.encode(corpus.text), config.fractions)]
    windows = data.Windows(splits[0], config.window)
    if len(splits[1]) < 2:
        raise ValueError(f"train: the validation split has {len(splits[1])} characters, it needs at least 2")
    layers = implementation.load(config.impl)
    if layers.is_ours and layers.name == "naive":
        raise ValueError("train: the naive layers have no gradients; train with vectorized or fused")
    _ask(config)
    model = _model(config, tokenizer.vocab, layers).to(device)
    if config.dtype != "float32":
        model.compute_dtype = getattr(torch, config.dtype)
    _say(config, corpus, model, layers)

    started = time.perf_counter()
    train_losses, validation_losses = _fit(config, model, windows, splits[1])
    seconds = time.perf_counter() - started

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


def _ask(config: Train) -> None:
    """Call our own optimizer once, which refuses rates that mean nothing, before anything is written."""
    ours, one = implementation.load("vectorized"), torch.ones(1)
    lr = ours.cosine_schedule(0, config.peak_lr, min(config.warmup_steps, config.steps), config.steps, config.min_lr)
    ours.adamw(one, one, one, one, 1, lr, (config.beta1, config.beta2), weight_decay=config.weight_decay)
    ours.clip_grad_norm([one], config.max_norm)


def _model(config: Train, vocab: int, layers: Implementation) -> Llama:
    shape = LlamaConfig(
        vocab_size=vocab,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.window,
    )
    model = Llama(shape, layers)
    model.reset_parameters(torch.Generator().manual_seed(config.seed))
    return model


def _fit(
    config: Train, model: Llama, windows: data.Windows, validation: Int64[Tensor, "n"]
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The losses of all steps, and those of the whole validation split with the step they were taken at."""
    optimizer = Optimizer(
        model,
        (config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        max_norm=config.max_norm,
        muon=config.muon_lr > 0,
    )
    warmup = min(config.warmup_steps, config.steps)
    losses: list[tuple[int, float]] = []
    validation_losses = [(0, evaluation.loss(model, validation, config.window))]
    config.out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=config.steps, unit="step", disable=None, file=sys.stderr)
    with bar, (config.out / "losses.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "learning_rate", "gradient_norm", "train_loss", "validation_loss"])
        rows.writerow([0, "", "", "", validation_losses[0][1]])
        for step in range(config.steps):
            lr = model.layers.cosine_schedule(step, config.peak_lr, warmup, config.steps, config.min_lr)
            loss = next_token_loss(model, *windows.batch(config.batch_size, config.seed, step))
            loss.backward()
            norm = optimizer.step(lr, lr * config.muon_lr / config.peak_lr)
            losses.append((step + 1, loss.item()))
            if not math.isfinite(losses[-1][1]):
                raise ValueError(f"train: the loss is {losses[-1][1]} at step {step}; try a smaller --peak-lr")
            measured = ""
            if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
                validation_losses.append((step + 1, evaluation.loss(model, validation, config.window)))
                measured = str(validation_losses[-1][1])
            rows.writerow([step + 1, lr, norm, losses[-1][1], measured])
            bar.set_postfix(train=f"{losses[-1][1]:.3f}", validation=f"{validation_losses[-1][1]:.3f}", refresh=False)
            bar.update()
    return losses, validation_losses


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
