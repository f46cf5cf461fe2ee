"""A step of training: `Trainer` takes one after another, with the options of a run (options.py).

    trainer = Trainer(Train(steps=100), model, Windows(ids, 128))
    for number in range(100):
        step = trainer.step(number)          # its learning rate, the gradient's norm, the loss

What a step does follows from the seed and its number alone.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from llama.model.language_model import LanguageModel
from llama.model.llama import Llama
from llama.text.windows import Windows
from llama.training import distributed
from llama.training.distributed import Group
from llama.training.losses import Step
from llama.training.optimizer import Optimizer
from llama.training.options import Train


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

    def __init__(self, config: Train, model: LanguageModel, windows: Windows, group: Group = distributed.ALONE):
        if config.by_hand and not isinstance(model, Llama):
            raise ValueError(f"train: only a Llama has its gradients by hand, got {type(model).__name__}")
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
        with torch.set_grad_enabled(not self.config.by_hand):
            return self._step(number, watch)

    def _step(self, number: int, watch: Callable[[str], AbstractContextManager[Any]]) -> Step:
        c = self.config
        lr = self.model.layers.cosine_schedule(number, c.peak_lr, min(c.warmup_steps, c.steps), c.steps, c.min_lr)
        with watch("data"):
            inputs, targets = self.windows.batch(c.batch_size, c.seed, number)
        total = torch.zeros((), device=inputs.device)
        places = c.accumulate * self.group.size
        for part in range(c.accumulate):
            place = part * self.group.size + self.group.rank
            with distributed.apart(self.forward) if part + 1 < c.accumulate else nullcontext():
                rows = [t.chunk(places)[place] for t in (inputs, targets)]
                if c.by_hand:
                    with watch("forward and backward"):
                        total += self._learn_by_hand(rows[0], rows[1]) / c.accumulate
                    continue
                with watch("forward"):
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

    def _learn_by_hand(self, inputs: Int64[Tensor, "batch seq"], targets: Int64[Tensor, "batch seq"]) -> Tensor:
        """The loss; its share of each gradient is added to what the parameters have."""
        assert isinstance(self.model, Llama)
        loss, gradients = self.model.gradients(inputs, targets)
        for name, parameter in self.model.named_parameters():
            gradient = gradients[name] / self.config.accumulate if self.config.accumulate > 1 else gradients[name]
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on beside its number: weights, and the optimizer's averages and count."""
        return self.model.state_dict() | self.optimizer.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of the same model: the next steps are the same to the last bit."""
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.optimizer.load(state)
