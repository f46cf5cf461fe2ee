"""The model that the tutorial "Llama from scratch" ends with, as it was: what this project grew from, to compare with.

What differs from Llama:

- its norm divides by one root mean square over all positions and features of a sequence, so that each position
  carries something of the later ones; its weight is [window d_model];
- a block has one norm, used twice, and adds its parts to what the norm returned rather than to what came in;
- rope turns neighbouring features by theta^(-2(i-1)/d_model), i from 0, over the full width;
- each head is as wide as the model; the matrices (but those of q, k and v) have biases;
- the dropout on the attention weights stays on in evaluation;
- the feed-forward block is a matrix, and then two more with a gate of learnt steepness; two such blocks end the model.

The sampler never draws the last window, and the loss is the mean over ten batches.

Source of the facts: https://github.com/bkitano/llama-from-scratch, README.md; the same model is in
https://github.com/s-maddrellmander/mini-llama.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama.text.windows import Windows
from llama.training import evaluation

DROPOUT = 0.1
STEPS = 5000
READ_AT = (200, 1000, 2500, 5000)
"""Steps of the re-run, and those whose losses stand in its table."""
WINDOW, BATCH = 16, 32
BATCHES = 10
"""Batches that a reported loss is the mean of."""


class Original(nn.Module):
    """The tutorial's last model; at its sizes it has 2,370,246 parameters, as the tutorial says."""

    def __init__(self, vocab: int, window: int = WINDOW, d_model: int = 128, n_layers: int = 4, n_heads: int = 8):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.blocks = nn.Sequential(*(Block(window, d_model, n_heads) for _ in range(n_layers)))
        self.head = nn.Sequential(nn.Linear(d_model, d_model), Gate(d_model), nn.Linear(d_model, vocab))

    def forward(self, token_ids: Int64[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        return self.head(self.blocks(self.embedding(token_ids)))


class Block(nn.Module):
    """One norm, attention, and a feed-forward block, each added to what the norm returned."""

    def __init__(self, window: int, d_model: int, n_heads: int):
        super().__init__()
        self.norm = SequenceNorm(window, d_model)
        self.attention = WideAttention(d_model, n_heads)
        self.feed_forward = nn.Sequential(nn.Linear(d_model, d_model), Gate(d_model))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        x = x + self.attention(x)
        x = self.norm(x)
        return x + self.feed_forward(x)


class SequenceNorm(nn.Module):
    """x / sqrt(mean(x²)) · weight, the mean over a whole sequence: this is where the future comes in."""

    def __init__(self, window: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(window, d_model))

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        return x / x.square().mean((1, 2), keepdim=True).sqrt() * self.weight[: x.shape[1]]


class WideAttention(nn.Module):
    """Causal attention of heads that are each as wide as the model."""

    drops_always = True
    """Whether the dropout on the attention weights stays on in evaluation, as it does in the tutorial."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        # One matrix for all heads: a head's rows are those that a matrix of its own would have.
        self.q, self.k, self.v = (nn.Linear(d_model, n_heads * d_model, bias=False) for _ in range(3))
        self.out = nn.Linear(n_heads * d_model, d_model)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        q, k, v = (w(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for w in (self.q, self.k, self.v))
        part = DROPOUT if self.training or self.drops_always else 0.0
        heads = F.scaled_dot_product_attention(_turn(q), _turn(k), v, dropout_p=part, is_causal=True)
        return self.dropout(self.out(heads.transpose(1, 2).flatten(2)))


def _turn(x: Float[Tensor, "batch heads seq d_model"]) -> Tensor:
    """Neighbouring features as complex numbers, turned clockwise."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-(torch.arange(half, device=x.device) - 1) / half)
    angles = torch.arange(x.shape[2], device=x.device)[:, None] * frequencies
    turned = torch.view_as_complex(x.unflatten(-1, (half, 2))) * torch.polar(torch.ones_like(angles), -angles)
    return torch.view_as_real(turned).flatten(-2)


class Gate(nn.Module):
    """g · sigmoid(beta · g) · u, with g and u a matrix each and beta learnt."""

    def __init__(self, d_model: int):
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return gate * torch.sigmoid(self.beta * gate) * self.up(x)


@contextmanager
def dropping_only_in_training(model: Original) -> Iterator[None]:
    """With the dropout off in evaluation, unlike the tutorial."""
    attentions = [module for module in model.modules() if isinstance(module, WideAttention)]
    for attention in attentions:
        attention.drops_always = False
    try:
        yield
    finally:
        for attention in attentions:
            attention.drops_always = True


class Reading(NamedTuple):
    """The losses at a step as the tutorial reports them, and that of validation from prefixes alone."""

    step: int
    train: float
    validation: float
    prefix: float


class Course(NamedTuple):
    """A model as it was trained."""

    model: Original
    readings: list[Reading]
    """What it was measured at on the way."""
    seconds: float
    """That all steps took, without the readings."""


def untrained(vocab: int, seed: int, window: int = WINDOW) -> Original:
    """The model before its first step."""
    torch.manual_seed(seed)  # the weights, and from here on the dropout
    return Original(vocab, window)


def train(
    training: Int64[Tensor, "n"],
    validation: Int64[Tensor, "m"],
    vocab: int,
    steps: int,
    measure: Iterable[int],
    seed: int,
    tick: Callable[[], object],
    window: int = WINDOW,
    batch: int = BATCH,
) -> Course:
    """Train as the tutorial does: Adam at its default rate, and nothing else. Read all losses after these steps."""
    model = untrained(vocab, seed, window).to(training.device)
    optimizer = torch.optim.Adam(model.parameters())
    at, readings, seconds = set(measure), [], 0.0
    for step in range(1, steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        _loss(model, *_draw(training, window, batch, (seed, step))).backward()
        optimizer.step()
        seconds += time.perf_counter() - started
        if step in at:
            readings.append(_read(model, training, validation, window, batch, (seed, step)))
        tick()
    return Course(model, readings, seconds)


def _draw(
    ids: Int64[Tensor, "n"], window: int, batch: int, key: tuple[int, ...]
) -> tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]:
    starts = np.random.default_rng(key).integers(len(ids) - window - 1, size=batch)
    return Windows(ids, window).at(torch.from_numpy(starts).to(ids.device))


def _loss(model: Original, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def _read(
    model: Original, training: Tensor, validation: Tensor, window: int, batch: int, key: tuple[int, int]
) -> Reading:
    """The mean over random batches of each split; the prefix-only loss is that of the very batches of validation."""
    batches = [
        [_draw(ids, window, batch, (*key, part, i)) for i in range(BATCHES)]
        for part, ids in enumerate((training, validation), start=1)  # a key that ends in zeros is that of the step
    ]
    model.eval()
    with torch.random.fork_rng():  # what is dropped here must not change what is dropped in training
        torch.manual_seed(key[1])
        train, validating = (float(np.mean([_loss(model, *drawn).item() for drawn in part])) for part in batches)
        windows = torch.cat([torch.cat((inputs, targets[:, -1:]), dim=1) for inputs, targets in batches[1]])
        prefix = evaluation.prefix_loss(model, windows)
    model.train()
    return Reading(key[1], train, validating, prefix)
