"""The gradient of cross-entropy: each token pulls its logits from the predicted probabilities to what really came.

    loss          = mean over tokens of  log(sum_j exp(logits_j)) - logits_target
    grad_logits_i = grad · (softmax(logits)_i - (1 if i = target else 0)) / tokens

    grad [], logits [... vocab], targets [...] int64 -> grad_logits [... vocab]

The derivative of log(sum_j exp(logits_j)) is softmax; that of -logits_target is -1 at the target. The number of tokens
is that of all leading axes. grad is the gradient of the loss, 1 where nothing comes after it. Each token's row sums to
zero. The result has the dtype of the logits; all is computed in at least float32. No target is special: -100 is not
skipped.

Raises IndexError for a target outside 0..vocab-1 and ValueError where there is no token.
Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equation 4.109.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import check_ids, contract
from llama.layers.model import wide

GRADIENTS = ("logits",)


def check(grad: Tensor | ndarray, logits: Tensor | ndarray, targets: Tensor | ndarray) -> None:
    if 0 in targets.shape:
        raise ValueError(f"cross_entropy_backward: there must be at least one token, got targets {list(targets.shape)}")
    check_ids("cross_entropy_backward: targets", targets, logits.shape[-1])


@contract(check)
def naive(
    grad: Float[ndarray, ""], logits: Float[ndarray, "... vocab"], targets: Int64[ndarray, "..."]
) -> Float[ndarray, "... vocab"]:
    grad_logits = np.empty(logits.shape)
    tokens = 0
    for _ in np.ndindex(targets.shape):
        tokens += 1
    share = float(grad) / tokens
    for token in np.ndindex(targets.shape):
        row = logits[token].tolist()
        largest = max(row)
        powers = [math.exp(logit - largest) for logit in row]
        total = sum(powers)
        for i, power in enumerate(powers):
            grad_logits[*token, i] = share * (power / total - (1 if i == targets[token] else 0))
    return grad_logits


@contract(check)
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, ""], logits: Float[Tensor, "... vocab"], targets: Int64[Tensor, "..."]
) -> Float[Tensor, "... vocab"]:
    dtype = wide(grad, logits)
    rows = logits.to(dtype)
    powers = torch.exp(rows - rows.amax(dim=-1, keepdim=True))
    probabilities = powers / powers.sum(dim=-1, keepdim=True)
    one_hot = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    return (grad.to(dtype) * (probabilities - one_hot.to(dtype)) / targets.numel()).to(logits.dtype)


@contract(check)
@torch.no_grad()
def fused(
    grad: Float[Tensor, ""], logits: Float[Tensor, "... vocab"], targets: Int64[Tensor, "..."]
) -> Float[Tensor, "... vocab"]:
    dtype = wide(grad, logits)
    rows = torch.softmax(logits, dim=-1, dtype=dtype)
    rows.scatter_add_(-1, targets[..., None], rows.new_full((), -1.0).expand(*targets.shape, 1))
    return rows.mul_(grad.to(dtype) / targets.numel()).to(logits.dtype)
