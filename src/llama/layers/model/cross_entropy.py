"""Cross-entropy: how surprised the model is by what really came next, in nats.

    loss = mean over tokens of  log(sum_j exp(logits_j)) - logits_target

    logits [... vocab], targets [...] int64 -> scalar

Logits come in, not probabilities. The mean is over all tokens, whatever the leading axes are. The
largest logit is taken out of the sum first, so a gap of any size costs that gap and does not overflow.
float16 and bfloat16 are summed in float32 and the loss is returned in their own dtype. No target is
special: -100 is not skipped.

Raises IndexError for a target outside 0..vocab-1 and ValueError where there is no token.
Source: Shannon 1948, "A Mathematical Theory of Communication", section 6 (natural logarithms).
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from llama.contract import check_ids, contract
from llama.layers.model import CACHED


def check(logits: Tensor | ndarray, targets: Tensor | ndarray) -> None:
    if 0 in targets.shape:
        raise ValueError(f"cross_entropy: there must be at least one token, got targets {list(targets.shape)}")
    check_ids("cross_entropy: targets", targets, logits.shape[-1])


@contract(check)
def naive(logits: Float[ndarray, "... vocab"], targets: Int64[ndarray, "..."]) -> Float[ndarray, ""]:
    total, tokens = 0.0, 0
    for token in np.ndindex(targets.shape):
        row = logits[token]
        largest = max(row)
        log_sum = largest + math.log(sum(math.exp(logit - largest) for logit in row))
        total += log_sum - row[targets[token]]
        tokens += 1
    return np.array(total / tokens)


@contract(check)
def vectorized(logits: Float[Tensor, "... vocab"], targets: Int64[Tensor, "..."]) -> Float[Tensor, ""]:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    gaps = wide - wide.amax(dim=-1, keepdim=True).detach()
    chosen = gaps.gather(-1, targets[..., None])[..., 0]
    return (gaps.exp().sum(dim=-1).log() - chosen).mean().to(logits.dtype)


@contract(check)
def fused(logits: Float[Tensor, "... vocab"], targets: Int64[Tensor, "..."]) -> Float[Tensor, ""]:
    rows, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    large = logits.element_size() == 2 and logits.is_cpu and logits.numel() > CACHED
    if large and logits.requires_grad and torch.is_grad_enabled():
        return _HalfWithGradient.apply(rows, targets)
    # torch sums float16 in float16: 70,000 equal logits, or three gaps of 60,000, overflow there.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(rows.to(wide), targets).to(logits.dtype)


class _HalfWithGradient(torch.autograd.Function):
    """The loss of half precision, in float32 a few tokens at a time, so that what is wide stays in the cache.

    What is kept for the gradient is softmax - onehot, not yet divided by the tokens: float16 would lose small ones.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        tokens, vocab = logits.shape
        total = torch.zeros((), device=logits.device)
        surplus = torch.empty_like(logits)
        few = CACHED // vocab + 1
        for i in range(0, tokens, few):
            chosen = targets[i : i + few, None]
            scores = logits[i : i + few].float().log_softmax(dim=-1)
            total -= scores.gather(1, chosen).sum()
            surplus[i : i + few] = scores.exp_().scatter_add_(1, chosen, scores.new_full(chosen.shape, -1.0))
        ctx.save_for_backward(surplus)
        return (total / tokens).to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, None]:
        (surplus,) = ctx.saved_tensors
        return (surplus * (towards.float() / len(surplus))).to(surplus.dtype), None
