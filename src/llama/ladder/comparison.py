"""The best model weighed against the tutorial's, and each part of the best rung by what is lost without it.

    weighing = weigh(config, prepared, bar)
    weighing.original, weighing.best     # the same text, window, number of parameters and seconds of training
    weighing.without                     # the best rung of the ladder itself, with one part taken back at a time

Every model is asked for its loss on the test split: as it reports it, from one parallel pass over each window, and
from prefixes alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from llama.contract.weights import DECODER_LAYER
from llama.implementation import Implementation
from llama.ladder import tutorial
from llama.ladder.climb import LEAK_WINDOWS, Ladder, train, widest
from llama.ladder.rungs import BEST, RUNGS, Rung
from llama.training import evaluation
from llama.training.preparation import Prepared

WARM, TIMED = 5, 30
"""Steps that are not timed, and those by which it is measured how many fit into a time."""
MANY_WINDOWS = 1024
"""Windows that the leak is measured on where there is one, and the loss of the last position."""


def _unturned(x: Tensor, positions: Tensor, frequencies: Tensor) -> Tensor:
    """In place of rope: no position is told from another."""
    return x


def _reglu(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """In place of swiglu: the same with a corner."""
    return F.linear(F.linear(x, w_gate).relu() * F.linear(x, w_up), w_down)


def _unnormalised(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """In place of rms_norm: features are scaled, and nothing is brought to one size."""
    return x * weight.to(x.dtype)


def _over_the_sequence(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """In place of rms_norm: the tutorial's mean, over all positions."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean((-2, -1), keepdim=True) + eps).rsqrt() * weight).to(x.dtype)


def _residual_from_the_normalised(layers: Implementation) -> Implementation:
    """Another decoder_layer: what is added to is the normalised input, as in the tutorial."""
    own = layers.completed()

    def decoder_layer(
        x: Tensor,
        weights: Mapping[str, Tensor],
        n_heads: int,
        n_kv_heads: int,
        positions: Tensor,
        frequencies: Tensor,
        eps: float = 1e-5,
    ) -> Tensor:
        norm, *attention, ffn_norm, gate, up, down = (weights[name] for name in DECODER_LAYER)
        x = own.rms_norm(x, norm, eps)
        x = x + own.self_attention(x, *attention, n_heads, n_kv_heads, positions, frequencies)
        x = own.rms_norm(x, ffn_norm, eps)
        return x + own.swiglu(x, gate, up, down)

    return own.replacing("residual from the normalised", decoder_layer=decoder_layer)


def _by_recipe(name: str, change: str, **recipe: Any) -> Rung:
    return Rung(name, change, recipe=BEST | recipe)


def _by_layers(name: str, change: str, **layers: Callable[..., Tensor]) -> Rung:
    return Rung(name, change, recipe=BEST, layers=lambda given: given.completed().replacing(name, **layers))


WHOLE = RUNGS[-1]
TAKEN_BACK = (
    _by_recipe("Muon", "AdamW for every weight", muon_lr=0.0),
    _by_recipe("rate of 6e-3", "1e-3 for what AdamW moves", peak_lr=1e-3, min_lr=5e-6),
    _by_recipe("warm-up", "the full rate from the first step", warmup=0.0),
    _by_recipe("cosine", "one rate to the end", min_lr=BEST["peak_lr"]),
    _by_recipe("weight decay", "none", weight_decay=0.0),
    _by_recipe("clipping", "none", max_norm=math.inf),
    Rung("grouped heads", "keys and values for every head", recipe=BEST, sizes={"num_key_value_heads": None}),
    _by_layers("silu", "ReLU in the gate", swiglu=_reglu),
    _by_layers("rope", "nothing tells where a character stands", rope=_unturned),
    _by_layers("rms_norm", "weights alone", rms_norm=_unnormalised),
    _by_layers("norm of each position", "one over the sequence, the tutorial's", rms_norm=_over_the_sequence),
    Rung("residual", "from the normalised input, the tutorial's", recipe=BEST, layers=_residual_from_the_normalised),
)
"""The best rung without one of its parts each, and what is there instead."""


class Weighed(NamedTuple):
    """What a model has come to from one seed; losses in nats per token of the test split."""

    parameters: int
    steps: int
    seconds: float
    """That all steps took."""
    reported: float
    """Each window in one pass."""
    leak: evaluation.Leak
    last: float
    """That of the last position of a window alone, which has nothing after it to read."""

    @property
    def prefix(self) -> float:
        """What is reported with the leak taken off: each position computed from its own prefix alone."""
        return self.reported - self.leak.difference


class Weighing(NamedTuple):
    """A result for each seed."""

    original: list[Weighed]
    """The tutorial's model, as it was."""
    undropped: list[Weighed]
    """The same, but with no dropout in evaluation."""
    best: list[Weighed]
    """The best one as large as that, after as many seconds."""
    without: dict[Rung, list[Weighed]]
    """The best rung, and then without one part each."""


def weigh(config: Ladder, prepared: Prepared, bar: "tqdm[Any]") -> Weighing:
    """Train all of them from each of the ladder's seeds.

    The tutorial's model is trained for `config.weigh` steps of its own kind. The best model gets the seconds that
    these took, at the same window and batch, as wide as fits into as many parameters.
    """
    result = Weighing([], [], [], {rung: [] for rung in (WHOLE, *TAKEN_BACK)})
    training, validation, _ = prepared.splits
    vocab = prepared.tokenizer.vocab
    bar.total = (bar.total or 0) + len(config.seeds) * (config.weigh + len(result.without) * config.steps)
    for seed in config.seeds:
        bar.set_description("original")
        course = tutorial.train(training, validation, vocab, config.weigh, (), seed, bar.update)
        spent = config.weigh, course.seconds
        result.original.append(_ask(course.model, prepared, tutorial.WINDOW, *spent))
        with tutorial.dropping_only_in_training(course.model):
            result.undropped.append(_ask(course.model, prepared, tutorial.WINDOW, *spent))

        bar.set_description("as large")
        alike = as_large(config, vocab)
        for steps in (WARM, TIMED):
            _, _, seconds = train(replace(alike, steps=steps), WHOLE, seed, prepared, lambda: None)
        alike = replace(alike, steps=steps_in(course.seconds, seconds / TIMED))
        bar.total = (bar.total or 0) + alike.steps
        result.best.append(_trained(alike, WHOLE, seed, prepared, bar))

        for rung, results in result.without.items():
            bar.set_description(rung.name)
            results.append(_trained(config, rung, seed, prepared, bar))
    return result


def steps_in(seconds: float, each: float) -> int:
    """How many steps fit, to the nearest; at least one."""
    return max(1, round(seconds / each))


def as_large(config: Ladder, vocab: int) -> Ladder:
    """The ladder at the window and batch of the tutorial, as wide as fits into as many parameters as its model has.

    Raises ValueError where the narrowest has more.
    """
    parameters = sum(p.numel() for p in tutorial.Original(vocab).parameters())
    return widest(replace(config, window=tutorial.WINDOW, batch_size=tutorial.BATCH), WHOLE, vocab, parameters)


def _trained(config: Ladder, rung: Rung, seed: int, prepared: Prepared, bar: "tqdm[Any]") -> Weighed:
    model, losses, seconds = train(config, rung, seed, prepared, bar.update)
    return _ask(model, prepared, config.window, len(losses), seconds)


def _ask(model: nn.Module, prepared: Prepared, window: int, steps: int, seconds: float) -> Weighed:
    test = prepared.splits[2]
    many = evaluation.spread(test, window, MANY_WINDOWS)
    leak = evaluation.leak(model, evaluation.spread(test, window, LEAK_WINDOWS))
    if leak.is_there:
        leak = evaluation.leak(model, many)
    reported, last = evaluation.loss(model, test, window), evaluation.last_loss(model, many)
    return Weighed(sum(p.numel() for p in model.parameters()), steps, seconds, reported, leak, last)
