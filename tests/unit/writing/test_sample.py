"""Sample: lay the probabilities end to end, and take the token that u falls into."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

NEVER = -math.inf


def logits(*probabilities):
    """The logits of these probabilities."""
    return tensor([math.log(p) if p else NEVER for p in probabilities])


@pytest.mark.parametrize(("u", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (0.99, 2)])
def test_the_token_is_the_first_whose_cumulative_probability_exceeds_u(sample, u, token):
    # 0.5, 0.8 and 1.
    assert_close(sample(logits(0.5, 0.3, 0.2), tensor(u)), tensor(token))


def test_at_a_limit_the_next_token_is_drawn(sample):
    # Half is not more than half.
    assert_close(sample(tensor([0.0, 0.0]), tensor(0.5)), tensor(1), "exceeds: > u, and not >= u")


def test_the_tokens_keep_their_order(sample):
    # Sorted by probability, 0.3 would fall into the last.
    assert_close(sample(logits(0.2, 0.3, 0.5), tensor(0.3)), tensor(1))


def test_the_logits_need_not_be_normalised(sample):
    # The probabilities are 0.2 and 0.8.
    assert_close(sample(100 + logits(0.1, 0.4), tensor(0.3)), tensor(1), "softmax")


def test_large_logits_do_not_overflow(sample):
    assert_close(sample(tensor([1e4, 1e4, -1e4]), tensor(0.75)), tensor(1))


def test_a_u_of_zero_does_not_draw_a_first_token_that_is_impossible(sample):
    assert_close(sample(logits(0, 0, 0.5, 0.5), tensor(0.0)), tensor(2), "exceeds: > u, and not >= u")


def test_an_impossible_token_in_between_is_passed_over(sample):
    assert_close(sample(logits(0.5, 0, 0.5), tensor(0.6)), tensor(2))


def test_a_u_just_below_one_does_not_draw_a_last_token_that_is_impossible(sample):
    assert_close(sample(logits(0.3, 0.7, 0, 0), tensor(1 - 2.0**-24)), tensor(1))


def test_where_rounding_ends_the_sum_below_u_the_last_possible_token_is_drawn(sample):
    # In float32 the probabilities of these ten sum to 1 - 2^-23, if they are added one after another.
    scores = [*torch.linspace(-3, 3, 10).mul(12).sin().tolist(), NEVER]
    assert_close(sample(tensor(scores), tensor(1 - 2.0**-24)), tensor(9), "none exceeds u: not the first, nor one more")


def test_each_row_has_its_own_u(sample):
    rows = logits(0.5, 0.5).repeat(2, 2, 1)
    assert_close(sample(rows, tensor([[0.4, 0.6], [0.7, 0.3]])), tensor([[0, 1], [1, 0]]))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2048, 2049, 4096])
def test_an_impossible_token_at_the_end_of_a_block_is_never_drawn(sample, n):
    # Only one token is possible, beside the ends of blocks of 1,024; the others are -inf.
    for place in {0, 1, min(1022, n - 1), n // 2, n - 2}:
        scores = tensor([NEVER] * n)
        scores[place] = 1.0
        for u in (0.0, 0.5, 1 - 2.0**-24):
            assert_close(sample(scores, tensor(u)), tensor(place), "cumulative sums over blocks")


def test_u_keeps_its_own_precision_beside_logits_of_half_precision(sample):
    # Of 4,096 equal tokens u = 2,049.5 / 4,096 draws the 2,050th; rounded to bfloat16 it would be 0.5.
    scores = torch.zeros(4096, dtype=torch.bfloat16, device=tensor(0.0).device)
    assert_close(sample(scores, tensor(2049.5 / 4096)), tensor(2049), "u rounded to the dtype of the logits")


def test_the_largest_logit_may_stand_anywhere(sample):
    # Two tokens of 1,100 share all probability: u = 0.75 draws the second.
    scores = torch.zeros(1100, device=tensor(0.0).device)
    scores[1050] = scores[1060] = 200.0
    assert_close(sample(scores, tensor(0.75)), tensor(1060), "the largest of all logits")


@pytest.mark.float64
def test_u_keeps_float64(sample):
    # Half less 1e-12 is still below half; in float32 it is half, and the second token is drawn.
    u = tensor(0.5 - 1e-12, torch.float64)
    assert_close(sample(tensor([0.0, 0.0], torch.float64), u), tensor(0), "u in float32")


def test_as_u_rises_each_token_is_drawn_for_as_long_as_it_is_likely(sample, plot):
    probabilities, u = (0.15, 0.4, 0.05, 0.25, 0.15), (torch.arange(40) + 0.5) / 40
    drawn = sample(logits(*probabilities).expand(40, 5), tensor(u.tolist()))
    ends = torch.tensor([0.0, *probabilities]).cumsum(dim=0)
    stairs = torch.stack((ends.repeat_interleave(2)[1:-1], torch.arange(5).repeat_interleave(2)))
    labels = {"xlabel": "u", "ylabel": "token", "yticks": range(5)}
    plot(
        u, {"_stairs": stairs, "drawn": drawn}, "o", title="40 values of u, each with the token that it draws", **labels
    )
    how_often = torch.bincount(drawn, minlength=5)
    bars = {"drawn, of 40": how_often / 40, "probability": tensor(probabilities)}
    plot(range(5), bars, "bars", title="how often", xlabel="token")
    assert_close(how_often, tensor([6, 16, 2, 10, 6]))
    assert_close(drawn, drawn.sort().values, "the tokens in the order of their ids")


@pytest.mark.refusal
@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (-0.5, 0.5)])
def test_a_u_outside_zero_to_one_is_refused(sample, low, high):
    with pytest.raises(ValueError, match=rf"sample: u must lie in \[0, 1\), got {low} to {high}"):
        sample(torch.zeros(2, 3), torch.tensor([low, high]))


@pytest.mark.refusal
def test_a_row_without_a_possible_token_is_refused(sample):
    rows = torch.tensor([[0.0, 0.0, 0.0], [NEVER, NEVER, NEVER]])
    sentence = r"sample: every row needs a token that is not -inf, got logits \[2, 3\] without"
    with pytest.raises(ValueError, match=sentence):
        sample(rows, torch.zeros(2))


@pytest.mark.refusal
def test_another_number_of_us_than_rows_is_refused(sample):
    with pytest.raises(ValueError, match=r"sample: u must be \[\.\.\.\] with \.\.\.=\(2,\), got \[3\]"):
        sample(torch.zeros(2, 5), torch.zeros(3))


@pytest.mark.refusal
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_logits_that_are_not_numbers_are_refused(sample, bad):
    with pytest.raises(ValueError, match=f"sample: logits must be finite or -inf, got {bad}"):
        sample(torch.tensor([0.0, bad]), torch.tensor(0.5))


@pytest.mark.refusal
def test_of_several_logits_that_are_not_numbers_the_first_is_told(sample):
    with pytest.raises(ValueError, match="sample: logits must be finite or -inf, got inf"):
        sample(torch.tensor([0.0, math.inf, math.nan]), torch.tensor(0.5))
