"""Speculative accept: a small model proposes tokens, of which those are kept that the large one would have drawn."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

NEVER = -math.inf
NEARLY_ONE = 1 - 2.0**-24
"""The largest u and v that float32 holds."""
JUST_BELOW_ONE = 1 - 2.0**-53
"""The same in float64."""
FLAT = (1, 1, 1, 1)


def rows(*of, dtype=None):
    """Rows of logits, each with probabilities in these proportions."""
    return tensor([[math.log(share) if share else NEVER for share in shares] for shares in of], dtype)


def draws(*numbers, dtype=None):
    return tensor([float(number) for number in numbers], dtype)


def double(number):
    return tensor(float(number), torch.float64)


def nothing_drafted(wanted):
    """No draft, for a target of one row: logits, ids and u."""
    return wanted[:0], wanted, tensor([], torch.int64), draws()


@pytest.mark.parametrize(
    ("u", "ids"),
    [(0.0, [0, 3]), (0.49, [0, 3]), (0.51, [2]), (0.99, [2])],
    ids=["0", "below the ratio", "above the ratio", "nearly 1"],
)
def test_a_draft_is_kept_while_u_is_below_the_ratio_of_the_probabilities(speculative_accept, u, ids):
    # The draft gives token 0 the probability 8/16, the target 4/16: it is kept for half of all u. Where it is kept, one
    # more token is drawn from the last row: v = 0.8 lies in the last quarter. Where it is not, a draw takes its place:
    # max(target - draft, 0) is 0, 0, 4 and 0 sixteenths, so that token 2 is the only one.
    drafted, wanted = rows((8, 4, 2, 2)), rows((4, 4, 6, 2), FLAT)
    out = speculative_accept(drafted, wanted, tensor([0]), draws(u), tensor(0.8))
    assert_close(out, tensor(ids), "kept while u · p_draft < p_target")


def test_a_draft_that_the_target_likes_better_is_always_kept(speculative_accept):
    # 2/16 and 6/16: no u is above the ratio of 3.
    drafted, wanted = rows((8, 4, 2, 2)), rows((4, 4, 6, 2), FLAT)
    out = speculative_accept(drafted, wanted, tensor([2]), draws(NEARLY_ONE), tensor(0.0))
    assert_close(out, tensor([2, 0]))


@pytest.mark.parametrize(("v", "token"), [(0.0, 1), (0.24, 1), (0.26, 2), (0.74, 2), (0.76, 3), (NEARLY_ONE, 3)])
def test_in_place_of_a_refused_draft_comes_a_draw_from_what_the_target_has_more(speculative_accept, v, token):
    # max(target - draft, 0): 0, 1, 2 and 1 sixteenths, over their sum 4. The sums are 0, 1/4, 3/4 and 1.
    drafted, wanted = rows((7, 3, 3, 3)), rows((3, 4, 5, 4), FLAT)
    out = speculative_accept(drafted, wanted, tensor([0]), draws(0.9), tensor(v))
    assert_close(out, tensor([token]), "the positive part of target - draft, divided by its sum")


def test_what_comes_after_the_first_refused_draft_is_thrown_away(speculative_accept):
    # Ratios 1, 1/3 and 1: the second draft is refused at u = 0.5, the third is not looked at. The draw in its place
    # comes from 0, 1, 1 sixteenths: v = 0.7 lies in the second half.
    drafted = rows((8, 4, 4), (6, 5, 5), (8, 4, 4))
    wanted = rows((8, 4, 4), (2, 7, 7), (8, 4, 4), (1, 1, 1))
    out = speculative_accept(drafted, wanted, tensor([1, 0, 0]), draws(0.5, 0.5, 0.5), tensor(0.7))
    assert_close(out, tensor([1, 2]), "the first refusal ends the result")


@pytest.mark.parametrize(("u", "ids"), [((0.4, 0.4), [0, 0, 0]), ((0.4, 0.6), [0, 1]), ((0.6, 0.4), [1])], ids=str)
def test_each_draft_has_a_u_of_its_own(speculative_accept, u, ids):
    # Both ratios are 1/2. After a refusal v = 0.3 draws from 0, 2 and 2 sixteenths, at the end from three thirds.
    drafted, wanted = rows((8, 4, 4), (8, 4, 4)), rows((4, 6, 6), (4, 6, 6), (1, 1, 1))
    out = speculative_accept(drafted, wanted, tensor([0, 0]), draws(*u), tensor(0.3))
    assert_close(out, tensor(ids), "draft i is judged by u[i]")


def test_each_draft_is_compared_in_a_row_of_its_own(speculative_accept):
    # Of equal models each draft is kept, and one more is drawn from the last row: v = 0.3 is in the second quarter.
    models = ((9, 5, 1, 1), (1, 1, 9, 5), (1, 9, 1, 5))
    out = speculative_accept(rows(*models), rows(*models, FLAT), tensor([3, 2, 1]), draws(0.99, 0.0, 0.5), tensor(0.3))
    assert_close(out, tensor([3, 2, 1, 1]), "draft i is judged by row i of both models")


def test_where_all_are_kept_the_last_row_of_the_target_is_drawn_from(speculative_accept):
    # It alone gives token 0 all but nothing; the row before would give it nearly everything.
    drafted, wanted = rows((98, 1, 1)), rows((98, 1, 1), (0, 1, 3))
    for v, token in ((0.0, 1), (0.24, 1), (0.26, 2)):
        out = speculative_accept(drafted, wanted, tensor([0]), draws(0.5), tensor(v))
        assert_close(out, tensor([0, token]), "target_logits[k]")


def test_without_drafts_one_token_is_drawn_from_the_target(speculative_accept):
    # The sums are 1/8, 1/2, 1/2 and 1.
    for v, token in ((0.0, 0), (0.12, 0), (0.13, 1), (0.49, 1), (0.51, 3), (NEARLY_ONE, 3)):
        out = speculative_accept(*nothing_drafted(rows((1, 3, 0, 4))), tensor(v))
        assert_close(out, tensor([token]), "k = 0: as sample draws")


def test_as_u_rises_the_draft_gives_way_to_what_is_left(speculative_accept, plot):
    # The draft proposes token 1 with 8/16, the target would draw it with 4/16. It is kept for u below 1/2; above,
    # tokens 0 and 2 come, in proportion 1 : 3.
    drafted, wanted = rows((4, 8, 4)), rows((5, 4, 7), (1, 1, 1))
    us, vs = ([(i + 0.5) / n for i in range(n)] for n in (32, 8))
    drawn = tensor(
        [[int(speculative_accept(drafted, wanted, tensor([1]), draws(u), tensor(v))[0]) for v in vs] for u in us]
    )
    shares = torch.stack([(drawn == token).float().mean(dim=1) for token in range(3)])
    lines = {f"token {token}": share for token, share in enumerate(shares)}
    plot(us, lines, "o-", title="what comes of draft 1, over all v", xlabel="u", ylabel="how often")
    right = torch.tensor([[0.0] * 16 + [0.25] * 16, [1.0] * 16 + [0.0] * 16, [0.0] * 16 + [0.75] * 16])
    assert_close(shares, right)


def test_at_the_limit_a_draft_is_refused(speculative_accept):
    # Half of 1/2 is 1/4, which is not less than 1/4. What is left is 0, 0, 1/4 and 1/4: v = 0.5 draws the latter.
    drafted, wanted = tensor([[0.0, 0.0, NEVER, NEVER]]), tensor([[0.0] * 4] * 2)
    out = speculative_accept(drafted, wanted, tensor([0]), tensor([0.5]), tensor(0.5))
    assert_close(out, tensor([3]), "less: <, and not <=; and then exceeds: > v, and not >= v")


def test_a_draft_that_is_impossible_for_the_target_is_refused_even_at_u_zero(speculative_accept):
    # 0 · 1/2 is not less than 0. What the target has more is all in token 2.
    drafted, wanted = tensor([[0.0, 0.0, NEVER]]), tensor([[NEVER, 0.0, 0.0]] * 2)
    out = speculative_accept(drafted, wanted, tensor([0]), tensor([0.0]), tensor(0.0))
    assert_close(out, tensor([2]), "less: <, and not <=")


def test_a_draft_that_the_draft_model_would_never_draw_is_kept_if_the_target_may(speculative_accept):
    # u · 0 is less than 1/2.
    drafted, wanted = tensor([[NEVER, 0.0]]), tensor([[0.0, 0.0], [NEVER, 0.0]])
    out = speculative_accept(drafted, wanted, tensor([0]), tensor([0.99]), tensor(0.5))
    assert_close(out, tensor([0, 1]), "0 in a denominator")


def test_where_nothing_is_left_the_target_itself_is_drawn_from(speculative_accept):
    # Token 1 is impossible for both, so it is refused; and the models are equal, so the difference is zero everywhere.
    models = [0.0, NEVER, 0.0, 0.0, 0.0]
    for v, token in ((0.0, 0), (0.25, 2), (0.5, 3), (0.75, 4)):
        out = speculative_accept(tensor([models]), tensor([models] * 2), tensor([1]), tensor([0.0]), tensor(v))
        assert_close(out, tensor([token]), "0/0: a difference whose sum is zero")


def test_a_v_of_zero_draws_no_token_that_is_impossible(speculative_accept):
    # What is left is 0, 0, 1/4, 1/4 after a refusal; the last row begins with an impossible token.
    drafted, wanted = tensor([[0.0, 0.0, NEVER, NEVER]]), tensor([[0.0] * 4, [NEVER, 0.0, 0.0, 0.0]])
    after_refusal = speculative_accept(drafted, wanted, tensor([0]), tensor([0.75]), tensor(0.0))
    assert_close(after_refusal, tensor([2]), "exceeds: > v, and not >= v")
    assert_close(speculative_accept(drafted, wanted, tensor([0]), tensor([0.25]), tensor(0.0)), tensor([0, 1]))


def unlike(scale, count):
    """Logits of no pattern, between -1 and 1."""
    return torch.linspace(-3, 3, count).mul(scale).sin().tolist()


@pytest.mark.float64
@pytest.mark.parametrize("impossible", [0, 3])
def test_a_v_just_below_one_draws_the_last_token_that_is_possible(speculative_accept, impossible):
    # Added up one after another in float64, the probabilities of these ten end at 1 - 2^-52, below v.
    last = tensor([unlike(2, 10) + [NEVER] * impossible])
    out = speculative_accept(*nothing_drafted(last), double(JUST_BELOW_ONE))
    assert_close(out, tensor([9]), "where no sum exceeds v: the last possible token, neither the last nor one more")


@pytest.mark.float64
def test_after_a_refusal_too_a_v_just_below_one_draws_the_last_token_that_is_left(speculative_accept):
    # Of tokens 0, 10 and 11 the draft thinks more than the target. The shares of the nine others end at 1 - 2^-52.
    between = unlike(39, 12)[1:10]
    drafted, wanted = tensor([[2.0, *between, 1.0, 1.0]]), tensor([[-3.0, *between, -3.0, -3.0]] * 2)
    out = speculative_accept(drafted, wanted, tensor([0]), draws(0.999), double(JUST_BELOW_ONE))
    assert_close(out, tensor([9]), "where no sum exceeds v: the last token of which something is left")


def test_logits_need_not_be_normalised_and_may_be_large(speculative_accept):
    # Probabilities 1/2, 1/2 and 1/4, 3/4: the ratio of token 0 is 1/2, though the target's logit is far larger.
    drafted, wanted = tensor([[-3e4, -3e4]]), tensor([[1e4, 1e4 + math.log(3)]] * 2)
    assert_close(speculative_accept(drafted, wanted, tensor([0]), tensor([0.4]), tensor(0.0)), tensor([0, 0]))
    assert_close(speculative_accept(drafted, wanted, tensor([0]), tensor([0.6]), tensor(0.0)), tensor([1]), "softmax")


def test_logits_of_half_precision_are_added_up_in_float64(speculative_accept):
    # Of 4,096 equal tokens v = 2,049.5 / 4,096 draws the 2,050th. In bfloat16 the sum would stop growing.
    flat = torch.zeros(1, 4096, dtype=torch.bfloat16, device=tensor(0.0).device)
    out = speculative_accept(*nothing_drafted(flat), tensor(2049.5 / 4096))
    assert_close(out, tensor([2049]), "sums, and v, in the dtype of the logits")


@pytest.mark.parametrize("u", [0.4999, 0.5001])
def test_u_keeps_its_own_precision_beside_logits_of_half_precision(speculative_accept, u):
    # The ratio is 1/2. Rounded to bfloat16 both would be 0.5.
    drafted = torch.tensor([[0.0, 0.0, NEVER, NEVER]], dtype=torch.bfloat16, device=tensor(0.0).device)
    flat = torch.zeros(2, 4, dtype=torch.bfloat16, device=drafted.device)
    out = speculative_accept(drafted, flat, tensor([0]), tensor([u]), tensor(0.0))
    assert_close(out, tensor([0, 0] if u < 0.5 else [2]), "u rounded to the dtype of the logits")


def test_the_draft_may_have_another_dtype_than_the_target(speculative_accept):
    # The target gives token 0 the probability 0.5005. Its logits 1.002 and 1 are the same number in bfloat16.
    drafted = torch.zeros(1, 2, dtype=torch.bfloat16, device=tensor(0.0).device)
    wanted = tensor([[0.0, 0.0], [1.002, 1.0]])
    out = speculative_accept(drafted, wanted, tensor([0]), tensor([0.5]), tensor(0.5002))
    assert_close(out, tensor([0, 0]), "the target in the dtype of the draft")


@pytest.mark.float64
@pytest.mark.parametrize("vocab", [66_000, 131_072])
def test_in_a_large_vocabulary_each_token_has_its_place(speculative_accept, vocab):
    # All are equally likely: v = (i + 0.5) / vocab draws token i. A float32 sum of so many drifts.
    flat = tensor(torch.zeros(1, vocab))
    for token in (0, 1, 40_001, 65_537, vocab - 2, vocab - 1):
        out = speculative_accept(*nothing_drafted(flat), double((token + 0.5) / vocab))
        assert_close(out, tensor([token]), "sums, and v, in float64")


@pytest.mark.float64
@pytest.mark.parametrize("difference", [-1e-12, 1e-12])
def test_u_and_v_keep_float64(speculative_accept, difference):
    # Limits of 1/2 for both, which float32 would reach from either side.
    drafted, wanted = tensor([[0.0, 0.0, NEVER, NEVER]]), tensor([[0.0] * 4] * 2)
    out = speculative_accept(
        drafted, wanted, tensor([0]), draws(0.5 + difference, dtype=torch.float64), double(0.5 + difference)
    )
    assert_close(out, tensor([0, 1] if difference < 0 else [3]), "u or v in float32")


@pytest.mark.float64
def test_a_difference_that_float32_does_not_have_is_drawn_from(speculative_accept):
    # Token 0 is refused. What the target has more lies in token 1 alone, 2^-35 of it; in float32 nothing would be left.
    drafted = rows((1, 1, 0), dtype=torch.float64)
    wanted = rows((1 - 2.0**-34, 1 + 2.0**-34, 0), (0, 0, 1), dtype=torch.float64)
    u = draws(JUST_BELOW_ONE, dtype=torch.float64)
    out = speculative_accept(drafted, wanted, tensor([0]), u, tensor(0.0))
    assert_close(out, tensor([1]), "probabilities in float32")


@pytest.mark.refusal
def test_a_target_without_one_more_row_than_the_draft_is_refused(speculative_accept):
    logits = torch.zeros(2, 3)
    sentence = "speculative_accept: target_logits must have one row more than draft_logits, got 2 and 2"
    with pytest.raises(ValueError, match=sentence):
        speculative_accept(logits, logits, torch.tensor([0, 1]), torch.zeros(2), torch.tensor(0.0))


@pytest.mark.refusal
@pytest.mark.parametrize(("u", "v", "sentence"), [([0.5, 1.0], 0.5, "u .* got 0.5 to 1.0"), ([0.5, 0.5], -0.5, "v .*")])
def test_a_u_or_v_outside_zero_to_one_is_refused(speculative_accept, u, v, sentence):
    with pytest.raises(ValueError, match=rf"speculative_accept: {sentence}"):
        speculative_accept(torch.zeros(2, 3), torch.zeros(3, 3), torch.tensor([0, 1]), torch.tensor(u), torch.tensor(v))


@pytest.mark.refusal
@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["draft_logits", "target_logits"])
def test_logits_that_are_not_numbers_are_refused(speculative_accept, name, bad):
    logits = {"draft_logits": torch.zeros(1, 2), "target_logits": torch.zeros(2, 2)}
    logits[name][0, 1] = bad
    with pytest.raises(ValueError, match=f"speculative_accept: {name} must be finite or -inf, got {bad}"):
        speculative_accept(**logits, draft_ids=torch.tensor([0]), u=torch.zeros(1), v=torch.tensor(0.5))


@pytest.mark.refusal
@pytest.mark.parametrize("name", ["draft_logits", "target_logits"])
def test_a_row_without_a_possible_token_is_refused(speculative_accept, name):
    logits = {"draft_logits": torch.zeros(1, 2), "target_logits": torch.zeros(2, 2)}
    logits[name][-1] = NEVER
    with pytest.raises(ValueError, match=f"speculative_accept: every row of {name} needs a token that is not -inf"):
        speculative_accept(**logits, draft_ids=torch.tensor([0]), u=torch.zeros(1), v=torch.tensor(0.5))


@pytest.mark.refusal
@pytest.mark.parametrize("draft", [-1, 3])
def test_a_draft_id_outside_the_vocabulary_is_refused(speculative_accept, draft):
    with pytest.raises(IndexError, match=rf"speculative_accept: draft_ids must lie in 0\.\.2, got {draft}"):
        speculative_accept(
            torch.zeros(1, 3), torch.zeros(2, 3), torch.tensor([draft]), torch.zeros(1), torch.tensor(0.5)
        )
