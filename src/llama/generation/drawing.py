"""From logits to tokens, by the model's own layers: filter_logits, then sample with a given random number."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llama.model.language_model import LanguageModel

COLDEST = 1e-6
"""The lowest temperature but 0: below it logits that are divided by it may leave float32, and 0 is what is meant."""


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn from the logits of a model.

    Raises ValueError, when it is made, for parameters that filter_logits refuses.
    """

    model: LanguageModel
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"generate: temperature must be 0 or at least {COLDEST}, got {self.temperature}")
        self.filtered(torch.zeros(1, self.model.config.vocab_size, device=next(self.model.parameters()).device))

    def filtered(self, logits: Float[Tensor, "... vocab"]) -> Float[Tensor, "... vocab"]:
        """What is left of the logits to draw from."""
        # A low temperature leaves float16.
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        left: Tensor = self.model.layers.filter_logits(wide, self.temperature, self.top_k, self.top_p, self.min_p)
        return left

    def drawn(self, filtered: Float[Tensor, "... vocab"], u: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
        """The tokens that these random numbers, float64 in [0, 1), draw from filtered logits."""
        exact = torch.float32 if filtered.is_mps else torch.float64
        ids: Tensor = self.model.layers.sample(filtered, u.to(filtered.device, exact))
        return ids

    def __call__(self, logits: Float[Tensor, "... vocab"], u: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
        """The tokens that these random numbers draw."""
        return self.drawn(self.filtered(logits), u)


def uniform(random: torch.Generator, count: int) -> Float[Tensor, "count"]:
    """Random numbers in [0, 1)."""
    return torch.rand(count, generator=random, dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    """Random numbers of that seed. Raises ValueError for one that torch does not take."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"generate: seed must lie in 0..2^63 - 1, got {seed}")
    return torch.Generator().manual_seed(seed)
