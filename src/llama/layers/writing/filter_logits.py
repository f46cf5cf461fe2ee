"""Filter logits: shape the distribution before a token is drawn from it.

In this order, each on what the one before has left:

    temperature   logits / temperature; at 0, only the first of the largest logits stays, as it is
    top_k         keep the logits that are >= the k-th largest: ties with it stay
    top_p         keep the most likely tokens, as few as reach the probability top_p together
    min_p         keep the tokens with a probability of at least min_p times the largest

    logits [... vocab] -> [... vocab], what is dropped is -inf

A token is only divided by the temperature or dropped, never changed otherwise. top_p keeps the token that
crosses p, so at least one, and at 1 all; of equally likely tokens it keeps those with the lower ids.
The division and the probabilities are in at least float32, and the result is in the dtype of the logits. None
leaves a filter out; a top_k above vocab keeps everything.

Raises ValueError for temperature < 0, top_k < 1, top_p outside (0, 1] and min_p outside [0, 1].
Source: Fan et al. 2018 (top-k); Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
equation 2 (top-p); Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling", section 3.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(
    logits: Tensor | ndarray,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> None:
    if logits.shape[-1] == 0:
        raise ValueError(f"filter_logits: vocab must be at least 1, got shape {list(logits.shape)}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"filter_logits: temperature must not be negative, and finite, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"filter_logits: top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"filter_logits: top_p must lie in (0, 1], got {top_p}")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"filter_logits: min_p must lie in [0, 1], got {min_p}")


@contract(check)
def naive(
    logits: Float[ndarray, "... vocab"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[ndarray, "... vocab"]:
    filtered = np.full(logits.shape, -math.inf)
    for row in np.ndindex(logits.shape[:-1]):
        values = [float(logit) for logit in logits[row]]
        # Likeliest first; sorting is stable, so of equals the lower id comes first.
        kept = sorted(range(len(values)), key=lambda i: -values[i])
        if temperature == 0:
            kept = kept[:1]
        else:
            values = [value / temperature for value in values]
        if top_k is not None and top_k < len(kept):
            kth = values[kept[top_k - 1]]
            kept = [i for i in kept if values[i] >= kth]
        if top_p is not None and top_p < 1:
            reached, nucleus = 0.0, []
            powers = {i: math.exp(values[i] - values[kept[0]]) for i in kept}
            total = sum(powers.values())
            for i in kept:
                if reached < top_p:
                    nucleus.append(i)
                reached += powers[i] / total
            kept = nucleus
        if min_p is not None:
            # The ratio of two probabilities is exp of the difference of their logits.
            kept = [i for i in kept if math.exp(values[i] - values[kept[0]]) >= min_p]
        for i in kept:
            filtered[*row, i] = values[i]
    return filtered


@contract(check)
def vectorized(
    logits: Float[Tensor, "... vocab"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "... vocab"]:
    if temperature == 0:
        only = torch.full_like(logits, -torch.inf)
        first = logits.argmax(dim=-1, keepdim=True)
        return only.scatter(-1, first, logits.gather(-1, first))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    if top_k is not None and top_k < wide.shape[-1]:
        kth = wide.topk(top_k, dim=-1).values[..., -1:]
        wide = wide.masked_fill(wide < kth, -torch.inf)
    if top_p is not None and top_p < 1:  # a float sum of all the others may reach 1 without the last
        descending, order = wide.sort(dim=-1, descending=True, stable=True)
        probabilities = descending.softmax(dim=-1)
        reached = probabilities.cumsum(dim=-1) - probabilities
        wide = wide.masked_fill(
            torch.empty_like(order, dtype=torch.bool).scatter(-1, order, reached >= top_p), -torch.inf
        )
    if min_p is not None:
        wide = wide.masked_fill((wide - wide.amax(dim=-1, keepdim=True)).exp() < min_p, -torch.inf)
    return wide.to(logits.dtype)


fused = vectorized  # torch has no faster function for any of its steps
