"""A step of training, and what one is asked for: `Train` has the flags, `Trainer` takes one step after another.

    trainer = Trainer(Train(steps=100), model, Windows(ids, 128))
    for number in range(100):
        step = trainer.step(number)          # its learning rate, the gradient's norm, the loss

What a step does follows from the seed and its number alone.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama import data, distributed, implementation
from llama.device import multiplies_bfloat16
from llama.distributed import Group
from llama.model import LanguageModel
from llama.optimizer import Optimizer
from llama.runs import Step


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
    """What the layers and Muon compute in: auto is bfloat16 where the device multiplies it. Weights stay float32."""
    compile: bool = False
    """Let torch.compile make one program of the model: about half a minute at first, then shorter steps, and losses
    that are rounded otherwise. It needs a C++ compiler."""
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


def compute_dtype(config: Train) -> torch.dtype | None:
    """What the layers compute in where it is not float32."""
    auto = config.dtype == "auto" and multiplies_bfloat16(torch.device(config.device))
    return torch.bfloat16 if auto or config.dtype == "bfloat16" else None


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


class Dropout:
    """Sets a part of what it is given to zero, and makes the rest larger by as much.

    What is dropped follows from the seed and the step alone, apart from what is read in that step. NumPy draws it, a
    byte per element, which is much faster than torch's own draws on a CPU. What is dropped in so many `calls` is drawn
    at once, since a compiled model cannot draw, and there are no more of them. It is drawn for the whole batch, of
    which what has that `shape` is the `place`-th of so many equal parts.
    """

    def __init__(
        self,
        part: float,
        seed: int,
        step: int,
        shape: tuple[int, ...],
        calls: int = 1,
        place: int = 0,
        places: int = 1,
    ):
        limit, random = round(256 * part), np.random.default_rng((seed, step, 1))
        drawn = (np.frombuffer(random.bytes(places * math.prod(shape)), np.uint8) for _ in range(calls))
        self.dropped = [torch.from_numpy(whole.reshape(places, *shape)[place] < limit) for whole in drawn]
        self.factor = 256 / (256 - limit)

    def __call__(self, x: Tensor) -> Tensor:
        return x.masked_fill(self.dropped.pop(0).to(x.device), 0.0) * self.factor


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
            with distributed.apart(self.forward) if part + 1 < c.accumulate else nullcontext():
                with watch("forward"):
                    rows = [t.chunk(places)[place] for t in (inputs, targets)]
                    if c.dropout:
                        of = self.model.config
                        shape, calls = (*rows[0].shape, of.hidden_size), 1 + 2 * of.num_hidden_layers
                        self.model.dropout = Dropout(c.dropout, c.seed, number, shape, calls, place, places)
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
