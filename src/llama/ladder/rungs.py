"""The rungs of the ladder, from a model that one can trust at sight to Llama: each changes one thing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama.implementation import Implementation
from llama.ladder.one_block import Parts, looking_ahead

PLAIN = {
    "peak_lr": 1e-3,
    "min_lr": 1e-3,
    "warmup": 0.0,
    "weight_decay": 0.0,
    "max_norm": math.inf,
    "muon_lr": 0.0,
    "beta2": 0.999,
    "dtype": "float32",
}
"""Adam at one rate, and nothing else: what the rungs before the oven are trained with. `warmup` is a part of all
steps."""


OVEN = PLAIN | {
    "peak_lr": 6e-3,
    "min_lr": 3e-5,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "max_norm": 1.0,
    "beta2": 0.99,
}
"""Warm-up over a tenth of the steps, a cosine, decay and clipping: what makes a higher rate safe."""


BEST = OVEN | {"muon_lr": 0.02, "dtype": "auto"}
"""What `train` uses: Muon for the matrices within the layers, and bfloat16 where the device multiplies it."""


@dataclass(frozen=True, eq=False)
class Rung:
    """A model, how it is trained, what has changed since the rung below, and what there is to see."""

    name: str
    change: str
    see: str = ""
    parts: Parts | None = None
    """Those of a small model; None is Llama itself."""
    recipe: Mapping[str, Any] = field(default_factory=lambda: PLAIN)
    layers: Callable[[Implementation], Implementation] = lambda layers: layers
    """What becomes of the layers that it is built with."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its LlamaConfig that are not the ladder's."""

    @property
    def tokenizer(self) -> str:
        """What the text is cut into, as `train --tokenizer` has it."""
        found: str = self.recipe.get("tokenizer", "characters")
        return found


RUNGS = (
    Rung(
        "softmax-twice",
        "Embedding, matrix, ReLU, matrix, softmax; and then a loss that takes a softmax of its own.",
        "Probabilities lie between 0 and 1, so the second softmax can hardly tell them apart: even a model that is "
        "sure and right could not get below ln(64 + e) - 1 = 3.20. The loss leaves ln 65 = 4.17 slowly and stays far "
        "above the rung that differs by one line.",
        Parts(softmax=True),
    ),
    Rung(
        "baseline",
        "The same on logits: the loss takes the only softmax.",
        "It sees one character and predicts the next, so all that it can learn is which pairs are frequent.",
        Parts(),
    ),
    Rung(
        "rms_norm",
        "Each character's features are brought to one size before they are used.",
        "It still sees one character only, so it ends where the baseline ends; it gets there sooner.",
        Parts(norm=True),
    ),
    Rung(
        "attention-without-a-mask",
        "A layer of attention with rope, added to the embedding; every position sees every other.",
        "The loss is too good to be true, and it is not true: the character to be predicted stands in sight. Computed "
        "from its prefix alone, each prediction is worse than the baseline's.",
        Parts(norm=True, attention=True),
        layers=looking_ahead,
    ),
    Rung(
        "attention",
        "The mask: a position sees itself and what is before it.",
        "A higher loss than without the mask, and the first that beats the baseline honestly: the leak is zero.",
        Parts(norm=True, attention=True),
    ),
    Rung(
        "swiglu",
        "The gated feed-forward block in place of the matrix and the ReLU.",
        "Three matrices for one, and a little better for it.",
        Parts(norm=True, attention=True, swiglu=True),
    ),
    Rung(
        "llama",
        "Several such layers on one residual stream, a norm at the end, a block of 8/3 the width, grouped heads.",
        "Depth: what one layer has found out, the next can use.",
    ),
    Rung(
        "by-hand",
        "The same model and the same training, but every gradient is written out by hand: autograd is off.",
        "The curve lies on that of llama. Nothing is gained, and nothing is left that one has to believe.",
        recipe=PLAIN | {"by_hand": True},
    ),
    Rung(
        "oven",
        "The same model, baked better: a warm-up, a higher rate that falls along a cosine, weight decay, clipping, "
        "and Adam forgets sooner.",
        "Not a line of the model has changed.",
        recipe=OVEN,
    ),
    Rung(
        "best",
        "Muon for the matrices within the layers, bfloat16 where it is fast: the recipe of `python -m llama train`.",
        "Again the same model. How it is trained is worth as much as what it is made of.",
        recipe=BEST,
    ),
)


TOKENS = Rung(
    "tokens",
    "The recipe of best on tokens: a vocabulary of 512, of byte pairs that the training split teaches. The model is "
    "narrower by what the larger vocabulary takes: it is no larger, and a step of as many tokens takes no longer.",
    "A token stands for about two characters. So in the same time the model reads more text, and a window reaches "
    "further back.",
    recipe=BEST | {"tokenizer": "bpe:512"},
)
"""What tokens are worth. It is climbed where it is asked for: every other rung predicts characters."""
