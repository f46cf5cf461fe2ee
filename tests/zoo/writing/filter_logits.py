"""The bugs that people make in filter_logits."""

import torch

from llama import implementation
from tests.cases import target


def probes():
    logits = target.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0])
    return [((logits,), {"min_p": 0.1})]


LAYERS = implementation.load("vectorized")


def crossing_token_dropped(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p drops the token that crosses p, so that what is left does not reach p (the first token always stays).

    Tempting: `cumulative > top_p` is what should go; that the token itself is in its sum is easily missed.
    Seen: rasbt/reasoning-from-scratch#164.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    if top_p is not None:
        probabilities, order = _most_likely_first(logits)
        drop = probabilities.cumsum(-1) > top_p
        drop[..., 0] = False
        logits = logits.masked_fill(torch.empty_like(drop).scatter(-1, order, drop), -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def mask_left_in_sorted_order(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p finds what to drop among the sorted tokens and drops it by the same places among the unsorted ones.

    Tempting: the mask has the right shape and the right number of tokens; only the scatter is missing.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    if top_p is not None:
        probabilities, _ = _most_likely_first(logits)
        logits = logits.masked_fill(probabilities.cumsum(-1) - probabilities >= top_p, -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def temperature_last(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the temperature comes last, so that top_p and min_p see probabilities that are not those drawn from.

    Tempting: filter first, then shape what is left; some programs do so on purpose.
    Seen: huggingface/transformers#8686.
    """
    if temperature == 0:
        return LAYERS.filter_logits(logits, temperature)
    return LAYERS.filter_logits(logits, 1.0, top_k, top_p, min_p) / temperature


def top_p_before_top_k(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p comes before top_k, so that its probabilities still count the tokens that top_k drops.

    Tempting: two filters, each of which only drops: their order seems not to matter.
    """
    kept = LAYERS.filter_logits(logits, temperature, top_p=top_p)
    return LAYERS.filter_logits(kept, top_k=top_k, min_p=min_p)


def ties_with_the_kth_dropped(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k keeps exactly k tokens, and of those that tie with the k-th largest drops the ones beyond k.

    Tempting: k means k, and the indices of topk are at hand.
    Seen: sgl-project/sglang#33539.
    """
    logits = LAYERS.filter_logits(logits, temperature)
    if top_k is not None:
        order = logits.sort(dim=-1, descending=True, stable=True).indices
        logits = logits.scatter(-1, order[..., top_k:], -torch.inf)
    return LAYERS.filter_logits(logits, top_p=top_p, min_p=min_p)


def min_p_not_relative(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """min_p drops every probability below min_p itself, not below min_p times the largest.

    Tempting: the name says no more than that (the largest token is kept here, so that one is left).
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k, top_p)
    if min_p is None:
        return logits
    probabilities = _wide(logits).softmax(-1)
    return logits.masked_fill(
        (probabilities < min_p) & (probabilities < probabilities.amax(-1, keepdim=True)), -torch.inf
    )


def temperature_zero_as_a_small_number(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """temperature 0 is replaced by 1e-5, so that logits become huge and all that tie with the largest stay.

    Tempting: it cures the division by zero, and the softmax of the result looks greedy.
    """
    return LAYERS.filter_logits(logits, max(temperature, 1e-5), top_k, top_p, min_p)


def _wide(logits):
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _most_likely_first(logits):
    descending, order = _wide(logits).sort(dim=-1, descending=True, stable=True)
    return descending.softmax(-1), order
