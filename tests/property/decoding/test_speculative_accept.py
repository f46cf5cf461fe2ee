"""What defines speculative_accept, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.cases.decoding.speculative_accept import arguments
from tests.cases.target import tensor
from tests.judge.assertions import assert_identical, fail

SIZES = "seq vocab"
JUST_BELOW_ONE = 1 - 2.0**-53
NEARLY_ONE = 1 - 2.0**-30
"""So close to one that nothing but the rounding of two equal probabilities fits between."""


def _logits(*shares):
    """Rows of logits with probabilities in these proportions."""
    return tensor([[math.log(share) if share else -math.inf for share in row] for row in shares], torch.float64)


def _draw(number):
    return tensor(float(number), torch.float64)


def _first(speculative_accept, drafted, wanted, draft, u, v):
    """The first id for one draft, from a target whose last row does not matter."""
    ids = speculative_accept(
        _logits(drafted), _logits(wanted, [1] * len(wanted)), tensor([draft]), tensor([u], torch.float64), _draw(v)
    )
    return int(ids[0])


def _middles(n):
    """The middles of n equal parts of [0, 1)."""
    return [(i + 0.5) / n for i in range(n)]


@st.composite
def _shares(draw, total, places):
    """How often each token comes of `total`, some never: what lies between cuts that are drawn."""
    cuts = sorted(draw(st.lists(st.integers(0, total), min_size=places - 1, max_size=places - 1)))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


PAIRS = {
    "equal": ([3, 0, 1], [3, 0, 1]),
    "disjoint": ([3, 1, 0, 0], [0, 0, 2, 2]),
    "filtered to one token": ([1, 2, 1], [0, 4, 0]),
    "a draft that is sure of itself": ([0, 4, 0], [1, 2, 1]),
    "the other way round": ([1, 3], [3, 1]),
}


def _grids(drafted, wanted):
    """So many u and v that their middles integrate exactly: no limit falls on one.

    A draft that comes `c` times of `n` is kept for a share wanted / c of all u, and c divides the number of u. What is
    left, in parts as large as those of both, is drawn from by as many v.
    """
    left = sum(max(w - d, 0) for d, w in zip(drafted, wanted, strict=True))
    return _middles(math.lcm(*range(1, sum(drafted) + 1))), _middles(max(left, 1))


def _assert_distributed_as_the_target(speculative_accept, drafted, wanted):
    """The first id, over all drafts as often as the draft model draws them, and over all u and v."""
    us, vs = _grids(drafted, wanted)
    found = torch.zeros(len(wanted), dtype=torch.int64)
    for draft, times in enumerate(drafted):
        for u in us if times else []:
            for v in vs:
                found[_first(speculative_accept, drafted, wanted, draft, u, v)] += times
    assert_identical(
        tensor(found), torch.tensor(wanted) * len(us) * len(vs), "what is kept, and what is drawn in its place"
    )


@pytest.mark.float64
@pytest.mark.parametrize("pair", PAIRS)
def test_the_first_id_is_distributed_as_the_target(speculative_accept, pair):
    _assert_distributed_as_the_target(speculative_accept, *PAIRS[pair])


@pytest.mark.float64
@given(drafted=_shares(3, 4), wanted=_shares(3, 4))
def test_the_first_id_is_distributed_as_the_target_whatever_the_draft(speculative_accept, drafted, wanted):
    _assert_distributed_as_the_target(speculative_accept, drafted, wanted)


@pytest.mark.float64
@given(drafted=_shares(3, 3), wanted=_shares(3, 3))
def test_the_id_after_one_that_is_kept_is_distributed_as_its_row_of_the_target(speculative_accept, drafted, wanted):
    us, vs = _grids(drafted, wanted)
    found = torch.zeros(3, dtype=torch.int64)
    sure = [0, 1, 0]  # both models are, so that the first draft is kept
    of_draft, of_target = _logits(sure, drafted), _logits(sure, wanted, [1, 1, 1])
    for draft, times in enumerate(drafted):
        for u in us if times else []:
            for v in vs:
                ids = speculative_accept(
                    of_draft, of_target, tensor([1, draft]), tensor([0.9, u], torch.float64), _draw(v)
                )
                found[int(ids[1])] += times
    assert_identical(tensor(found), torch.tensor(wanted) * len(us) * len(vs), "the row of that place in both")


@pytest.mark.float64
@given(case=cases("n"))
def test_without_drafts_each_token_comes_as_often_as_the_target_says(speculative_accept, case):
    counts = case.integers("n", 7)
    counts[case.seed % case.n] += 1
    wanted = _logits(counts.tolist())
    nothing = tensor([], torch.float64)
    drawn = [
        speculative_accept(wanted[:0], wanted, tensor([], torch.int64), nothing, _draw(v))
        for v in _middles(int(counts.sum()))
    ]
    found = torch.bincount(torch.cat(drawn), minlength=case.n)
    assert_identical(found, counts, "softmax, cumulative sum, the first that exceeds v")


@given(case=cases(SIZES))
def test_the_result_is_a_prefix_of_the_drafts_and_one_token_more(speculative_accept, case):
    args, _ = arguments(case)
    ids, drafts = speculative_accept(*args), args[2]
    if ids.ndim != 1 or not 1 <= len(ids) <= case.seq + 1:
        fail(f"of {case.seq} drafts came ids of shape {list(ids.shape)}", "1 to k + 1 ids")
    assert_identical(ids[:-1], drafts[: len(ids) - 1], "what is kept comes first, then one draw")


@pytest.mark.float64
@given(case=cases(SIZES))
def test_equal_models_keep_all_drafts_for_any_u(speculative_accept, case):
    logits = case.normal([case.seq + 1, case.vocab], 3.0)
    drafts, u = case.integers("seq", case.vocab), tensor([NEARLY_ONE] * case.seq, torch.float64)
    for of_u in (torch.zeros_like(u), u):
        ids = speculative_accept(logits[:-1], logits, drafts, of_u, case.uniform("", 0.0, 0.99))
        assert_identical(ids[:-1], drafts, "kept while u · p_draft < p_target")


@given(case=cases(SIZES, vocab=(2, 13)))
def test_models_that_share_no_token_keep_no_draft(speculative_accept, case):
    # The draft model knows the even tokens, the target the odd ones. Even at u = 0 nothing is kept.
    drafted, wanted = case.normal("seq vocab"), case.normal([case.seq + 1, case.vocab])
    drafted[:, 1::2] = wanted[:, ::2] = -math.inf
    drafts = 2 * case.integers("seq", (case.vocab + 1) // 2)
    ids = speculative_accept(drafted, wanted, drafts, torch.zeros_like(drafted[:, 0]), case.uniform("", 0.0, 0.99))
    if len(ids) != 1 or not int(ids[0]) % 2:
        fail(f"the ids are {ids.tolist()}, the drafts {drafts.tolist()}, and the target draws odd ids alone")


@given(case=cases(SIZES, seq=(2, 7)))
def test_what_comes_behind_the_first_refusal_has_no_influence(speculative_accept, case):
    (drafted, wanted, drafts, u, v), _ = arguments(case)
    wanted[1] = -math.inf
    wanted[1, (drafts[1] + 1) % case.vocab] = 0.0  # so that draft 1 is refused, if there is another token
    before = speculative_accept(drafted, wanted, drafts, u, v)
    if case.vocab > 1:
        drafted[2:], wanted[2:] = case.normal(drafted[2:].shape, 9.0), case.normal(wanted[2:].shape, 9.0)
        drafts[2:] = (drafts[2:] + 1) % case.vocab
        u[2:] = 0.0
    assert_identical(speculative_accept(drafted, wanted, drafts, u, v), before, "the first refusal ends the result")
    if len(before) > 2 and case.vocab > 1:
        fail(f"draft 1 is impossible, and still there are {len(before)} ids", "the first refusal ends the result")


@pytest.mark.float64
@given(case=cases(SIZES))
def test_u_alone_decides_what_is_kept_and_v_what_is_drawn(speculative_accept, case):
    (drafted, wanted, drafts, u, _), _ = arguments(case)
    results = [speculative_accept(drafted, wanted, drafts, u, _draw(v)) for v in (0.0, 0.3, 0.6, JUST_BELOW_ONE)]
    for ids in results:
        assert_identical(ids[:-1], results[0][:-1], "v has nothing to do with what is kept")
    drawn = torch.stack([ids[-1] for ids in results])
    assert_identical(drawn, drawn.sort().values, "the tokens in the order of their ids")


@given(case=cases(SIZES))
def test_a_larger_u_never_keeps_more(speculative_accept, case):
    (drafted, wanted, drafts, u, v), _ = arguments(case)
    counts = [
        len(speculative_accept(drafted, wanted, drafts, of_u, v)) for of_u in (torch.zeros_like(u), u, (u + 0.99) / 2)
    ]
    if counts != sorted(counts, reverse=True):
        fail(f"with larger and larger u there are {counts} ids", "kept while u · p_draft < p_target")


@pytest.mark.exact
@given(case=cases(SIZES), shift=st.sampled_from([-100.0, 100.0]))
def test_adding_a_constant_to_the_logits_of_a_model_changes_nothing(speculative_accept, case, shift):
    # Whole numbers, so that the sum is exact.
    (drafted, wanted, drafts, u, v), _ = arguments(case)
    drafted, wanted = (3 * drafted).round(), (3 * wanted).round()
    before = speculative_accept(drafted, wanted, drafts, u, v)
    assert_identical(speculative_accept(drafted + shift, wanted, drafts, u, v), before)
    assert_identical(speculative_accept(drafted, wanted + shift, drafts, u, v), before)


@pytest.mark.float64
@pytest.mark.parametrize("v", [0.0, JUST_BELOW_ONE], ids=["v=0", "v just below 1"])
@given(case=cases(SIZES))
def test_a_token_that_the_target_gives_no_chance_never_comes(speculative_accept, v, case):
    # Filtered logits in both, and drafts that the draft model may or may not draw.
    (drafted, wanted, drafts, u, _), _ = arguments(case)
    for logits in (drafted, wanted):
        logits[case.booleans(logits.shape)] = -math.inf
        logits[:, case.seed % case.vocab] = 0.0
    ids = speculative_accept(drafted, wanted, drafts, u, _draw(v))
    if not ((ids >= 0) & (ids < case.vocab)).all():
        fail(f"an id of {ids.tolist()} is off the end", "a cumulative sum that ends below v")
    chances = wanted[: len(ids)].gather(1, ids[:, None])
    if (chances == -math.inf).any():
        fail("a token that the target never draws comes", "< and not <=; > v and not >= v; the end of the sums")


@pytest.mark.float64
@given(case=cases(SIZES, vocab=(2, 13)))
def test_in_place_of_a_refused_draft_comes_a_token_that_the_target_likes_better(speculative_accept, case):
    (drafted, wanted, drafts, u, _), _ = arguments(case)
    u = torch.full_like(u, 0.99)
    for v in (0.0, 0.5, JUST_BELOW_ONE):
        ids = speculative_accept(drafted, wanted, drafts, u, _draw(v))
        row = len(ids) - 1
        if row == case.seq:
            continue  # none was refused
        drawn = int(ids[-1])
        of_draft, of_target = (float(of[row].double().softmax(-1)[drawn]) for of in (drafted, wanted))
        if of_target <= of_draft:
            fail(f"token {drawn} comes, to which the draft gives {of_draft:.6f} and the target {of_target:.6f}")


@pytest.mark.float64
@given(case=cases("batch", [torch.float32]), scale=st.sampled_from([0.0, 1.0, 2.0]))
def test_of_66_000_tokens_the_draw_is_exact_to_float64(speculative_accept, case, scale):
    # Somewhere in the middle of the span of a token, and v in float64: a float32 sum would be off by many tokens.
    logits = case.normal("1 66000", scale)
    ends = logits[0].double().cpu().softmax(-1).cumsum(-1)
    token = int(case.integers("1", 66_000)[0]) - case.seed % 33_000
    v = float(ends[token] - (ends[token] - ends[token - 1]) / 2)
    ids = speculative_accept(logits[:0], logits, tensor([], torch.int64), tensor([]), _draw(v))
    assert_identical(ids, tensor([token]), "probabilities, sums and v in float64")
