"""The ladder: from a model that one can trust at sight to Llama, one change at a time.

Each rung trains on the same batches, from the same seed, for as many steps, and is then asked the same questions:
how well does it predict text that it has not seen, does it do so honestly, and what does it write?
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from llama.generation.stream import generate
from llama.implementation import Implementation
from llama.ladder.one_block import OneBlock
from llama.ladder.rungs import RUNGS, Rung
from llama.model import weights
from llama.model.config import LlamaConfig
from llama.model.language_model import LanguageModel
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import evaluation
from llama.training.options import Train, compute_dtype
from llama.training.preparation import Prepared
from llama.training.trainer import Trainer

SAMPLE = 200
"""Tokens of each sample."""
LEAK_WINDOWS = 128
"""Windows that the leak is measured on."""


@dataclass(frozen=True)
class Ladder:
    """Train every model from the baseline to Llama on the same batches, and say what each change is worth."""

    rungs: tuple[str, ...] = tuple(rung.name for rung in RUNGS)
    """Which rungs, in this order; there is one more, tokens."""
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, grammar (built in, with known entropy), or the path of a text file."""
    steps: int = 250
    """Optimizer steps of each rung."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the weights and the batches; with several, means and spreads are reported."""
    originals: bool = False
    """Also train the tutorial's last model as it was, and show its loss as reported beside the honest one."""
    weigh: int = 0
    """Also weigh the best model against the tutorial's after so many steps of it (1000 is where its honest loss is
    lowest): same text, window, number of parameters and time. And take the best recipe's parts back, one at a time."""
    window: int = 32
    """Characters that a model sees at once."""
    batch_size: int = 32
    """Windows per step."""
    hidden_size: int = 128
    """Width of the models (d_model)."""
    num_hidden_layers: int = 4
    """Number of decoder layers from the rung `llama` on."""
    num_attention_heads: int = 4
    """Number of query heads."""
    num_key_value_heads: int = 2
    """Number of key and value heads from the rung `llama` on."""
    impl: str = "fused"
    """Whose layers compute it: vectorized, fused, a dotted module, a .py file or a folder."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path = Path("out/ladder")
    """Folder for the page and the numbers."""


@dataclass(frozen=True)
class Climb:
    """What has become of one rung from one seed; losses in nats per character, whatever it predicts."""

    rung: Rung
    seed: int
    model: LanguageModel
    losses: list[float]
    """Of each step's batch, before the step."""
    train_loss: float
    validation_loss: float
    test_loss: float
    leak: evaluation.Leak
    tokens_per_second: float
    sample: str
    bytes_per_character: float
    """Of what is predicted of the validation split."""

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def prefix_loss(self) -> float:
        """The validation loss with the leak taken off: what is left when each position sees its own prefix alone."""
        return self.validation_loss - self.leak.difference

    @property
    def bits_per_byte(self) -> float:
        """The prefix loss in bits for each byte of the text."""
        return self.prefix_loss / (math.log(2) * self.bytes_per_character)


def recipe(config: Ladder, rung: Rung, seed: int) -> Train:
    """How a rung is trained."""
    shared = {f.name: getattr(config, f.name) for f in fields(config) if f.name in Train.__dataclass_fields__}
    own = dict(rung.recipe)
    warmup_steps = round(own.pop("warmup") * config.steps)
    return Train(**shared | own | {"warmup_steps": warmup_steps, "seed": seed})


def llama_config(config: Ladder, rung: Rung, vocab: int) -> LlamaConfig:
    """The sizes of a rung that is Llama, and the width of one that is not."""
    sizes = {
        "vocab_size": vocab,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.window,
    }
    checked = LlamaConfig(**sizes | dict(rung.sizes))
    # So that what comes out of a matrix is as large as what goes in, with a norm before it or without.
    return replace(checked, initializer_range=checked.hidden_size**-0.5)


def build(config: Ladder, rung: Rung, vocab: int, layers: Implementation, seed: int) -> LanguageModel:
    """The model of a rung, with its first weights."""
    wide, layers = llama_config(config, rung, vocab), rung.layers(layers)
    if rung.parts is None:
        model: LanguageModel = Llama(wide, layers)
    else:
        heads = wide.num_attention_heads
        one = replace(wide, num_hidden_layers=1, intermediate_size=wide.hidden_size, num_key_value_heads=heads)
        model = OneBlock(rung.parts, one, layers)
    model.reset_parameters(torch.Generator().manual_seed(seed))
    return model


def widest(config: Ladder, rung: Rung, vocab: int, parameters: int) -> Ladder:
    """The ladder with that rung as wide as fits into so many parameters. Raises ValueError where nothing fits."""

    def fits(width: int) -> bool:
        return weights.count(llama_config(replace(config, hidden_size=width), rung, vocab)) <= parameters

    unit = 2 * config.num_attention_heads  # a head is of pairs, which rope turns
    if not fits(unit):
        raise ValueError(f"ladder: {config.num_hidden_layers} layers do not fit into {parameters:,} parameters")
    width = unit
    while fits(width + unit):
        width += unit
    return replace(config, hidden_size=width)


class Trained(NamedTuple):
    """A model, the loss of each step's batch before the step, and how many seconds all steps took."""

    model: LanguageModel
    losses: list[float]
    seconds: float


def train(config: Ladder, rung: Rung, seed: int, prepared: Prepared, tick: Callable[[], object]) -> Trained:
    """Train the model of a rung from a seed, calling `tick` after each step, until the loss is no longer a number."""
    model = build(config, rung, prepared.tokenizer.vocab, prepared.layers, seed).to(prepared.device)
    trained_as = recipe(config, rung, seed)
    trainer = Trainer(trained_as, model, Windows(prepared.splits[0], config.window))
    model.compute_dtype = compute_dtype(trained_as)
    losses = []
    started = time.perf_counter()
    for number in range(config.steps):
        losses.append(trainer.step(number).loss)
        tick()
        if not math.isfinite(losses[-1]):
            break
    seconds = time.perf_counter() - started
    model.eval().compute_dtype = None
    return Trained(model, losses, seconds)


def climb(config: Ladder, rung: Rung, seed: int, prepared: Prepared, tick: Callable[[], object]) -> Climb:
    """Train a rung from a seed, and ask it everything. Raises ValueError where its loss is no longer a number."""
    training, validation, test = prepared.splits
    model, losses, seconds = train(config, rung, seed, prepared, tick)
    if not math.isfinite(losses[-1]):
        raise ValueError(f"ladder: the loss of {rung.name} is {losses[-1]} at step {len(losses) - 1}")
    sample = generate(model, prepared.splits[0][None, :1], SAMPLE, temperature=0.8, seed=seed)[0]

    def loss(ids: torch.Tensor) -> float:
        return evaluation.loss(model, ids, config.window) * prepared.per_character(ids)

    known = training[: len(validation)]  # as many tokens as the validation split has
    of_known, per_character = prepared.per_character(known), prepared.per_character(validation)
    leak = evaluation.leak(model, evaluation.spread(validation, config.window, LEAK_WINDOWS))
    characters = (len(validation) - 1) / per_character
    return Climb(
        rung,
        seed,
        model,
        [step * of_known for step in losses],
        loss(known),
        loss(validation),
        loss(test),
        evaluation.Leak(leak.parallel * per_character, leak.prefix * per_character),
        config.steps * config.batch_size * config.window / seconds,
        prepared.tokenizer.decode(sample).strip(),
        evaluation.predicted_bytes(prepared.tokenizer, validation) / characters,
    )
