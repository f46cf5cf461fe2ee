"""Sample: draw a token by a given random number, so that the same number draws the same token.

    id = the first i with  p_0 + ... + p_i > u,      p = softmax(logits)

    logits [... vocab], u [...] in [0, 1) -> ids [...] int64

The inverse of the cumulative distribution. A token of probability zero (logit -inf) is never drawn, at
u = 0 neither; and where rounding lets the sum end below u, the last possible token is drawn, never one
off the end. Probabilities are computed and summed in at least float32; u keeps its own precision.

Raises ValueError for u outside [0, 1), for logits that are NaN or infinite, and where no token of a row is
possible.
Source: Devroye 1986, "Non-Uniform Random Variate Generation", section III.2.1.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(logits: Tensor | ndarray, u: Tensor | ndarray) -> None:
    if not ((u >= 0) & (u < 1)).all():
        raise ValueError(f"sample: u must lie in [0, 1), got {u.min().item()} to {u.max().item()}")
    if not (logits < math.inf).all():  # NaN is not below anything
        raise ValueError(f"sample: logits must be finite or -inf, got {_first_of(logits, ~(logits < math.inf))}")
    if not (logits > -math.inf).any(-1).all():
        raise ValueError(f"sample: every row needs a token that is not -inf, got logits {list(logits.shape)} without")


def _first_of(values: Tensor | ndarray, wrong: Tensor | ndarray) -> float:
    return values[wrong].reshape(-1)[0].item()


@contract(check)
def naive(logits: Float[ndarray, "... vocab"], u: Float[ndarray, "..."]) -> Int64[ndarray, "..."]:
    ids = np.empty(u.shape, dtype=np.int64)
    for row in np.ndindex(u.shape):
        largest = max(logits[row])
        powers = [math.exp(logit - largest) for logit in logits[row]]
        total, reached = sum(powers), 0.0
        for i, power in enumerate(powers):
            reached += power / total
            if power > 0:
                ids[row] = i
            if reached > u[row]:
                break
    return ids


@contract(check)
def vectorized(logits: Float[Tensor, "... vocab"], u: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
    probabilities, cumulative = _distribution(logits)
    ids = (cumulative <= u[..., None]).sum(dim=-1)
    return torch.minimum(ids, _last_possible(probabilities))


@contract(check)
def fused(logits: Float[Tensor, "... vocab"], u: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
    probabilities, cumulative = _distribution(logits)
    ids = torch.searchsorted(cumulative, u.to(cumulative.dtype)[..., None].contiguous(), right=True)[..., 0]
    return torch.minimum(ids, _last_possible(probabilities))


def _distribution(logits: Float[Tensor, "... vocab"]) -> tuple[Float[Tensor, "... vocab"], Float[Tensor, "... vocab"]]:
    # Over 32,000 tokens a float32 sum drifts; float64 is free beside the model, but Apple's GPUs lack it.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    probabilities = logits.to(wide).softmax(dim=-1)
    return probabilities, probabilities.cumsum(dim=-1)


def _last_possible(probabilities: Float[Tensor, "... vocab"]) -> Int64[Tensor, "..."]:
    return probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).to(torch.int64).argmax(dim=-1)
