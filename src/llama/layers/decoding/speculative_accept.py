"""Speculative accept: of the tokens that a draft model proposes, keep what the target model would have drawn too.

    for i = 0, 1, ... k - 1:
        keep draft_ids[i]    while   u[i] · p_draft[i](draft_ids[i]) < p_target[i](draft_ids[i])
        else end with a draw from    max(p_target[i] - p_draft[i], 0), made to sum to one
    where all are kept, end with a draw from p_target[k]

    draft_logits [k vocab], target_logits [k+1 vocab], draft_ids [k] int64, u [k] and v [] in [0, 1)
    -> ids [1 to k+1] int64

p is the softmax of a row, in which a logit of -inf has probability 0. draft_ids[i] was drawn from p_draft[i]; the
token in its place should follow p_target[i], and the one after all of them p_target[k]. A draw is that of `sample`
with v: the first id whose cumulative probability exceeds v. Where the difference leaves nothing, p_target[i] itself
is drawn from. With k = 0 the result is one draw. The first id is distributed exactly as p_target[0], whatever the
draft. All is computed in float64.

Where rounding lets the cumulative probability end below v, the last possible id is drawn.

Raises ValueError for u or v outside [0, 1), for logits that are NaN or +inf, and where all logits of a row are -inf;
IndexError for a draft id outside the vocabulary. Every row is looked at, those behind the first refusal too.
Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", algorithm 1.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import check_ids, contract


def check(
    draft_logits: Tensor | ndarray,
    target_logits: Tensor | ndarray,
    draft_ids: Tensor | ndarray,
    u: Tensor | ndarray,
    v: Tensor | ndarray,
) -> None:
    if len(target_logits) != len(draft_logits) + 1:
        raise ValueError(
            f"speculative_accept: target_logits must have one row more than draft_logits, "
            f"got {len(target_logits)} and {len(draft_logits)}"
        )
    for name, values in (("u", u), ("v", v)):
        if not ((values >= 0) & (values < 1)).all():
            raise ValueError(
                f"speculative_accept: {name} must lie in [0, 1), got {values.min().item()} to {values.max().item()}"
            )
    for name, logits in (("draft_logits", draft_logits), ("target_logits", target_logits)):
        # The largest of a row tells all: NaN where one is NaN, and a quarter of the time of comparing each.
        largest = logits.amax(-1) if isinstance(logits, Tensor) else logits.max(-1)
        if not (largest < math.inf).all():  # NaN is not below anything
            wrong = logits[~(logits < math.inf)].reshape(-1)[0].item()
            raise ValueError(f"speculative_accept: {name} must be finite or -inf, got {wrong}")
        if not (largest > -math.inf).all():
            raise ValueError(f"speculative_accept: every row of {name} needs a token that is not -inf")
    check_ids("speculative_accept: draft_ids", draft_ids, draft_logits.shape[1])


@contract(check)
def naive(
    draft_logits: Float[ndarray, "k vocab"],
    target_logits: Float[ndarray, "k1 vocab"],
    draft_ids: Int64[ndarray, "k"],
    u: Float[ndarray, "k"],
    v: Float[ndarray, ""],
) -> Int64[ndarray, "kept"]:
    ids: list[int] = []
    for i, draft in enumerate(draft_ids.tolist()):
        p_draft, p_target = _probabilities(draft_logits[i]), _probabilities(target_logits[i])
        if float(u[i]) * p_draft[draft] < p_target[draft]:
            ids.append(draft)
            continue
        left = [max(of_target - of_draft, 0.0) for of_target, of_draft in zip(p_target, p_draft, strict=True)]
        ids.append(_drawn(left if sum(left) > 0 else p_target, float(v)))
        return np.array(ids, dtype=np.int64)
    ids.append(_drawn(_probabilities(target_logits[-1]), float(v)))
    return np.array(ids, dtype=np.int64)


def _probabilities(logits: ndarray) -> list[float]:
    row = logits.tolist()
    largest = max(row)
    powers = [math.exp(logit - largest) for logit in row]
    total = sum(powers)
    return [power / total for power in powers]


def _drawn(weights: list[float], v: float) -> int:
    """The first id up to which they reach more than v of their sum; else the last that is possible."""
    total, reached, last = sum(weights), 0.0, 0
    for i, weight in enumerate(weights):
        reached += weight / total
        if weight > 0:
            last = i
        if reached > v:
            break
    return last


@contract(check)
def vectorized(
    draft_logits: Float[Tensor, "k vocab"],
    target_logits: Float[Tensor, "k1 vocab"],
    draft_ids: Int64[Tensor, "k"],
    u: Float[Tensor, "k"],
    v: Float[Tensor, ""],
) -> Int64[Tensor, "kept"]:
    k, wide = len(draft_ids), _wide(u)
    p_draft, p_target = draft_logits.to(wide).softmax(dim=-1), target_logits.to(wide).softmax(dim=-1)
    of_draft, of_target = (p[:k].gather(1, draft_ids[:, None])[:, 0] for p in (p_draft, p_target))
    kept = int((u * of_draft < of_target).cumprod(dim=0).sum())
    last = p_target[kept]
    if kept < k:
        left = (last - p_draft[kept]).clamp(min=0)
        last = left if left.sum() > 0 else last
    cumulative = (last / last.sum()).cumsum(dim=0)
    # Where rounding lets the sum end below v, the last token that is possible.
    drawn = torch.minimum((cumulative <= v).sum(), last.nonzero()[-1, 0])
    return torch.cat((draft_ids[:kept], drawn[None]))


@contract(check)
def fused(
    draft_logits: Float[Tensor, "k vocab"],
    target_logits: Float[Tensor, "k1 vocab"],
    draft_ids: Int64[Tensor, "k"],
    u: Float[Tensor, "k"],
    v: Float[Tensor, ""],
) -> Int64[Tensor, "kept"]:
    wide = _wide(u)
    limits = u.tolist()
    # Row by row: what comes after the first that is not kept is not computed.
    for i, draft in enumerate(draft_ids.tolist()):
        p_draft, p_target = draft_logits[i].to(wide).softmax(dim=-1), target_logits[i].to(wide).softmax(dim=-1)
        if not limits[i] * p_draft[draft].item() < p_target[draft].item():
            left = (p_target - p_draft).clamp_(min=0)
            drawn = _draw(left if left.any() else p_target, v)
            return torch.cat((draft_ids[:i], drawn))
    return torch.cat((draft_ids, _draw(target_logits[-1].to(wide).softmax(dim=-1), v)))


def _draw(weights: Tensor, v: Tensor) -> Tensor:
    cumulative = weights.cumsum(dim=0)
    drawn = torch.searchsorted(cumulative, (v * cumulative[-1])[None], right=True)
    # Where rounding lets no sum exceed v, as it may where the sums are tiny, the last token that is possible.
    return drawn if drawn < len(weights) else weights.nonzero()[-1]


def _wide(u: Tensor) -> torch.dtype:
    return torch.float32 if u.is_mps else torch.float64  # Apple's GPUs have no float64
