"""How good a model is: its loss on a whole split, and whether that loss is honest.

    loss(model, validation, window=64)            # every token predicted once, in parallel
    prefix_loss(model, some_windows)              # every position computed from its own prefix alone

The two agree to rounding for every model that predicts from the past. Where the parallel loss is lower,
the model reads the future.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama.model.language_model import LanguageModel, evaluating
from llama.text.tokenizer import Tokenizer

ROUNDING = 1e-5
"""How far two means over many losses, computed in float32 in two ways, may lie apart: some 80 of its steps at 1."""


@contextmanager
def as_it_is(model: nn.Module) -> Iterator[None]:
    """Without dropout, and with its own weights rather than what they are rounded to in training."""
    rounded = getattr(model, "compute_dtype", None)
    if isinstance(model, LanguageModel):
        model.compute_dtype = None
    try:
        with evaluating(model):
            yield
    finally:
        if isinstance(model, LanguageModel):
            model.compute_dtype = rounded


@torch.no_grad()
def loss(model: nn.Module, ids: Int64[Tensor, "n"], window: int, batch: int = 64) -> float:
    """Mean cross-entropy in nats per token over the whole split.

    The split is cut into windows that do not overlap (the last may be shorter), so every token but the
    first is predicted exactly once, from what precedes it in its window.

    Raises ValueError where the split has fewer than two tokens, or the window or the batch none.
    """
    if min(window, batch) < 1:
        raise ValueError(f"loss: window and batch must be at least 1, got {window} and {batch}")
    if len(ids) < 2:
        raise ValueError(f"loss: a split must have at least 2 tokens, got {len(ids)}")
    total = 0.0
    inputs, targets = ids[:-1], ids[1:]
    whole = len(inputs) // window * window
    rows = list(
        zip(inputs[:whole].view(-1, window).split(batch), targets[:whole].view(-1, window).split(batch), strict=True)
    )
    if whole < len(inputs):
        rows.append((inputs[None, whole:], targets[None, whole:]))
    with as_it_is(model):
        for x, y in rows:
            total += token_losses(model(x), y).double().sum().item()
    return total / len(inputs)


def bits_per_byte(loss: float, tokens: int, size: int) -> float:
    """From nats per token to bits per byte of the text that so many predicted tokens stand for.

    loss · tokens / (ln 2 · size): the same measure for characters and for tokens of any length.
    """
    return loss * tokens / (math.log(2) * size)


def predicted_bytes(tokenizer: Tokenizer, ids: Int64[Tensor, "n"]) -> int:
    """The size in UTF-8 of what is predicted of the ids: all but the first, which is predicted from nothing."""
    return len(tokenizer.decode(ids[1:]).encode("utf-8"))


@torch.no_grad()
def prefix_loss(model: nn.Module, windows: Int64[Tensor, "batch seq"]) -> float:
    """Mean cross-entropy where each prediction comes from a pass over its prefix alone.

    Position t of a window is predicted by the last logits of model(window[: t]), so nothing later exists
    that could be read. It costs a pass per position; the parallel loss over the same windows is
    `parallel_loss`.
    """
    with as_it_is(model):
        per_position = [
            token_losses(model(windows[:, :t])[:, -1:], windows[:, t : t + 1]) for t in range(1, windows.shape[1])
        ]
    return torch.cat(per_position, dim=1).double().mean().item()


class Leak(NamedTuple):
    """The loss of one parallel pass beside that from prefixes alone, over the same windows."""

    parallel: float
    prefix: float

    @property
    def difference(self) -> float:
        """Parallel minus prefix-only: negative where the model reads the future."""
        return self.parallel - self.prefix

    @property
    def is_there(self) -> bool:
        """Whether the two differ by more than rounding."""
        return abs(self.difference) > ROUNDING


def leak(model: nn.Module, windows: Int64[Tensor, "batch seq"]) -> Leak:
    """What the model gains from reading the future, in nats per token."""
    return Leak(parallel_loss(model, windows), prefix_loss(model, windows))


def last_loss(model: nn.Module, windows: Int64[Tensor, "batch seq"]) -> float:
    """Mean cross-entropy of the last token of each window, from all that precede it: no position reads ahead there."""
    with as_it_is(model), torch.no_grad():
        return token_losses(model(windows[:, :-1])[:, -1:], windows[:, -1:]).double().mean().item()


@torch.no_grad()
def moved_by_the_last(model: nn.Module, windows: Int64[Tensor, "batch seq"], vocab: int) -> float:
    """The share of logits before the last position that are others when the last token is another.

    Zero for a model that predicts from the past: the causality test. What is dropped is the same in both passes.
    """
    changed = windows.clone()
    changed[:, -1] = (changed[:, -1] + 1) % vocab
    before = []
    for ids in (windows, changed):
        with as_it_is(model), torch.random.fork_rng():
            torch.manual_seed(0)
            before.append(model(ids)[:, :-1])
    return (before[0] != before[1]).double().mean().item()


def spread(ids: Int64[Tensor, "n"], window: int, count: int) -> Int64[Tensor, "batch window_plus_one"]:
    """At most `count` windows of window + 1 tokens, evenly spread over the split; they may overlap where it is short.

    Raises ValueError where not one fits.
    """
    if len(ids) <= window:
        raise ValueError(f"leak: a window of {window} needs {window + 1} tokens, the split has {len(ids)}")
    starts = torch.linspace(0, len(ids) - window - 1, min(count, len(ids) - window)).long().unique()
    return ids[starts[:, None].to(ids.device) + torch.arange(window + 1, device=ids.device)]


@torch.no_grad()
def parallel_loss(model: nn.Module, windows: Int64[Tensor, "batch seq"]) -> float:
    """Mean cross-entropy of all positions of the windows but the first, from one pass."""
    with as_it_is(model):
        return token_losses(model(windows[:, :-1]), windows[:, 1:]).double().mean().item()


def token_losses(
    logits: Float[Tensor, "batch seq vocab"], targets: Int64[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """The cross-entropy of each token, in nats."""
    return nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
