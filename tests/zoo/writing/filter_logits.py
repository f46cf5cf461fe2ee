"""The bugs that people make in filter_logits."""

import torch

from llama import implementation
from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def probes():
    logits = target.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0])
    descending = target.tensor(torch.linspace(1, 0, 2000))
    many, close = target.tensor(torch.linspace(0, 1, 66000)), target.tensor([1.0, 1.0, 0.5])
    flat = target.tensor(torch.zeros(1000)).bfloat16()
    rows = target.tensor([[0.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
    impossible = target.tensor([-torch.inf, 1.0, -torch.inf, 0.0])

    def next_call(filter_logits):
        first = filter_logits(rows.clone(), 2.0)
        return [filter_logits(rows + 1, 2.0), first]

    def changed_afterwards(filter_logits):
        given = rows.clone()
        result = filter_logits(given)
        given.zero_()
        return result

    return [
        ((logits,), {"min_p": 0.1}),
        ((descending, 1.0, 1500), {}),
        lambda filter_logits: filter_logits(many.clone(), 1.0, 5)[-9:],
        ((flat,), {"top_p": 0.75}),
        ((close,), {"top_p": 1e-9}),
        ((close, 1e-6), {}),
        ((target.tensor([10.0, 9.0, -9.0]).half(), 1e-4, 1), {}),
        ((impossible, 1.0, 3), {}),
        ((impossible, 0.0), {}),
        ((impossible, 1.0, None, 0.999999), {}),
        ((target.tensor([[100.0, 0.0], [-100.0, -200.0]]), 1.0, None, None, 0.0), {}),
        lambda filter_logits: filter_logits(rows.mT.contiguous().mT, 1.0, 2),
        next_call,
        changed_afterwards,
    ]


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


def top_k_of_1024_at_most(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k keeps no more than 1,024 tokens.

    Tempting: a selection in one block has room for so many, and who asks for more?
    Seen: kekzl/imp#1142 (beyond 128).
    """
    return LAYERS.filter_logits(logits, temperature, top_k and min(top_k, 1024), top_p, min_p)


def tokens_beyond_65536_dropped(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k looks at the first 65,536 tokens only, and drops the others.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """
    if top_k is not None and logits.shape[-1] > 65536:
        kept = LAYERS.filter_logits(logits[..., :65536], temperature, top_k, top_p, min_p)
        return torch.cat((kept, torch.full_like(logits[..., 65536:], -torch.inf)), dim=-1)
    return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)


def top_p_summed_in_half_precision(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """for top_p the probabilities are summed in the dtype of the logits, where a long sum stops growing.

    Tempting: a softmax comes back in the dtype of its argument, and the sum after it looks harmless.
    Seen: NVIDIA/Megatron-LM#7182.
    """
    if top_p is None or logits.dtype not in (torch.float16, torch.bfloat16):
        return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    probabilities, order = _most_likely_first(logits)
    before, reached = [], torch.zeros_like(probabilities[..., 0], dtype=logits.dtype)
    for probability in probabilities.to(logits.dtype).unbind(-1):
        before.append(reached)
        reached = (reached + probability).to(logits.dtype)
    drop = torch.stack(before, dim=-1) >= top_p
    logits = logits.masked_fill(torch.empty_like(drop).scatter(-1, order, drop), -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def top_p_from_the_unlikely_end(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p drops tokens, least likely first, while their sum stays within 1 - top_p: a tiny top_p drops all of them.

    Tempting: it is the same set on paper; but 1 - top_p is rounded to 1, and then everything is dropped.
    Seen: ml-explore/mlx-lm#1912.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    if top_p is not None and top_p < 1:
        probabilities, order = _most_likely_first(logits)
        drop = probabilities.flip(-1).cumsum(-1).flip(-1) <= torch.tensor(1 - top_p, dtype=probabilities.dtype)
        logits = logits.masked_fill(torch.empty_like(drop).scatter(-1, order, drop), -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def nearly_zero_is_greedy(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """a temperature below 1e-5 is taken for zero, so that of equal logits only the first is left, and not divided.

    Tempting: the quotients grow so large that only the largest counts anyway.
    """
    return LAYERS.filter_logits(logits, temperature if temperature >= 1e-5 else 0.0, top_k, top_p, min_p)


def divided_in_half_precision(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the temperature divides in the dtype of the logits, where different ones become the same infinity in float16.

    Tempting: it is one line, and only what follows is a sum.
    """
    if temperature == 0:
        return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)
    return LAYERS.filter_logits(logits / temperature, 1.0, top_k, top_p, min_p)


def ties_across_the_limit_dropped(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k keeps what is larger than the (k+1)-th largest, so that of equals on both sides of the limit none is kept.

    Tempting: k tokens lie above the next one, and where logits are random numbers no two are equal.
    """
    logits = LAYERS.filter_logits(logits, temperature)
    if top_k is not None and top_k < logits.shape[-1]:
        limit = logits.topk(top_k + 1, dim=-1).values[..., -1:]
        logits = logits.masked_fill((logits <= limit) & (logits < logits.amax(-1, keepdim=True)), -torch.inf)
    return LAYERS.filter_logits(logits, top_p=top_p, min_p=min_p)


def strides_ignored(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the logits are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come fresh out of a product; those of the last position alone do not.
    """
    return LAYERS.filter_logits(as_if_contiguous(logits), temperature, top_k, top_p, min_p)


def logits_themselves_where_nothing_is_asked(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """where no filter is asked for, the result is the logits themselves, and changes with them.

    Tempting: there is nothing to do.
    """
    if temperature == 1 and top_k is None and top_p is None and min_p is None:
        return logits
    return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)


_PLACES = {}


def result_in_one_place(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: decoding filters one row after another, always of one shape.
    """
    place = _PLACES.setdefault((logits.shape, logits.dtype, logits.device), torch.empty_like(logits.detach()))
    return place.copy_(LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p).detach())


def temperature_multiplied(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the logits are multiplied by the temperature, and not divided by it.

    Tempting: a higher temperature sounds like more of something.
    """
    other = 1 / temperature if temperature else 0.0
    return LAYERS.filter_logits(logits, other, top_k, top_p, min_p)


def top_k_of_the_smallest(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k keeps the least likely tokens.

    Tempting: sort goes upwards unless it is told otherwise.
    """
    if top_k is None or top_k >= logits.shape[-1]:
        return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)
    limit = logits.sort(dim=-1).values[..., top_k - 1 : top_k]
    return LAYERS.filter_logits(logits.masked_fill(logits > limit, -torch.inf), temperature, None, top_p, min_p)


def zero_where_it_should_be_minus_infinity(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """what is dropped becomes 0, which as a logit is no small chance at all.

    Tempting: a probability of 0 is what is meant.
    """
    kept = LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)
    return kept.masked_fill((kept == -torch.inf) & (logits > -torch.inf), 0.0)


def kth_dropped(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_k keeps only what is larger than the k-th largest, which is dropped itself.

    Tempting: "below the k-th" and "not above the k-th" differ by one character.
    """
    logits = LAYERS.filter_logits(logits, temperature)
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits <= logits.topk(top_k, dim=-1).values[..., -1:], -torch.inf)
    return LAYERS.filter_logits(logits, top_p=top_p, min_p=min_p)


def top_p_for_each_token(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p drops every token whose own probability is below top_p: nothing is added up.

    Tempting: the parameter is a probability, and so is what it seems to be compared with.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    if top_p is not None:
        logits = logits.masked_fill(_wide(logits).softmax(-1) < top_p, -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def top_p_added_up_by_id(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """top_p adds up the probabilities in the order of the ids, and not from the most likely token on.

    Tempting: cumsum works on what is there, and the sort before it is forgotten.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k)
    if top_p is not None:
        probabilities = _wide(logits).softmax(-1)
        logits = logits.masked_fill(probabilities.cumsum(-1) - probabilities >= top_p, -torch.inf)
    return LAYERS.filter_logits(logits, min_p=min_p)


def min_p_of_the_largest_logit(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """min_p drops every logit below min_p times the largest logit: no probabilities are taken.

    Tempting: "of the largest" is the part of the rule that is remembered.
    """
    logits = LAYERS.filter_logits(logits, temperature, top_k, top_p)
    if min_p is None:
        return logits
    return logits.masked_fill(logits < min_p * logits.amax(-1, keepdim=True), -torch.inf)


def temperature_zero_is_no_temperature(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """a temperature of 0 is taken for none at all, so that the logits stay as they are.

    Tempting: `if temperature:` is false for 0 as well as for None.
    """
    return LAYERS.filter_logits(logits, temperature or 1.0, top_k, top_p, min_p)


def temperature_ignored(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the logits are not divided by the temperature, and only 0 has an effect.

    Tempting: dividing all logits alike changes no order, and greedy decoding works.
    """
    return LAYERS.filter_logits(logits, 1.0 if temperature else 0.0, top_k, top_p, min_p)


def dropped_at_minus_1e9(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """what is dropped becomes -1e9, and not -inf.

    Tempting: it is as good as nothing in a softmax, and -inf makes NaN.
    """
    kept = LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p)
    return kept.masked_fill(kept == -torch.inf, -1e9)


def likeliest_first(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the logits come back sorted, the largest first, so that places are no longer ids.

    Tempting: top_p has to sort them, and the way back is forgotten.
    """
    return LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p).sort(-1, descending=True).values


def probabilities_returned(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """the probabilities of what is left are returned, and not its logits.

    Tempting: a token is drawn next, and that takes probabilities.
    """
    return LAYERS.softmax(LAYERS.filter_logits(logits, temperature, top_k, top_p, min_p))
