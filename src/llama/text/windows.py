"""From a text to batches: consecutive splits, and windows whose targets are their inputs shifted by one.

train, validation, test = split(text)                               # 80 / 10 / 10, in order
inputs, targets = Windows(ids_of_train, 64).batch(32, seed=0, step=0)      # both [32 64]
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def split(text: str, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> tuple[str, str, str]:
    """Train, validation and test: consecutive parts that cover the text, the same ones whatever its tokens are.

    Raises ValueError unless the three fractions are not negative and add up to 1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ValueError(f"split: fractions must be three that add up to 1, got {tuple(fractions)}")
    first, second = round(len(text) * fractions[0]), round(len(text) * (fractions[0] + fractions[1]))
    return text[:first], text[first:second], text[second:]


class Windows:
    """All windows of a split: the i-th starts at token i, and its targets are its inputs shifted by one.

    Raises ValueError where the split has no room for one window and its last target.
    """

    def __init__(self, ids: Int64[Tensor, "n"], window: int):
        if window < 1:
            raise ValueError(f"windows: window must be at least 1, got {window}")
        if len(ids) <= window:
            raise ValueError(f"windows: a window of {window} needs {window + 1} tokens, the split has {len(ids)}")
        self.ids, self.window = ids, window

    def __len__(self) -> int:
        return len(self.ids) - self.window

    def at(self, starts: Int64[Tensor, "batch"]) -> tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]:
        """Inputs and targets of the windows that start there. Raises IndexError where none starts."""
        if not ((starts >= 0) & (starts < len(self))).all():
            raise IndexError(f"windows: starts must lie in 0..{len(self) - 1}, got {starts.tolist()}")
        tokens = self.ids[starts[:, None] + torch.arange(self.window + 1, device=self.ids.device)]
        return tokens[:, :-1], tokens[:, 1:]

    def batch(
        self, size: int, seed: int, step: int
    ) -> tuple[Int64[Tensor, "batch window"], Int64[Tensor, "batch window"]]:
        """The batch of that step: drawn from the seed and the step alone, so a resumed run sees the same.

        Raises ValueError for a size, a seed or a step that is negative.
        """
        if min(size, seed, step) < 0:
            raise ValueError(f"windows: size, seed and step must not be negative, got {size}, {seed} and {step}")
        starts = np.random.default_rng((seed, step)).integers(len(self), size=size)
        return self.at(torch.from_numpy(starts).to(self.ids.device))
