"""Filter logits: divide by the temperature, then drop all but the likely tokens, in a fixed order."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def logits(*probabilities):
    """The logits of these probabilities."""
    return tensor([math.log(p) for p in probabilities])


def only(kept, values):
    """`values` where `kept` has the id, -inf elsewhere."""
    return torch.stack([value if i in kept else tensor(-math.inf) for i, value in enumerate(values)])


def test_by_default_nothing_changes(filter_logits):
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x), x)


def test_the_temperature_divides_the_logits(filter_logits):
    assert_close(filter_logits(tensor([3.0, -1.0]), temperature=2.0), tensor([1.5, -0.5]))


def test_top_k_keeps_the_k_largest(filter_logits):
    x = tensor([1.0, 4.0, 2.0, 3.0])
    assert_close(filter_logits(x, top_k=2), only([1, 3], x))


def test_top_k_keeps_ties_with_the_kth(filter_logits):
    x = tensor([1.0, 3.0, 2.0, 2.0])
    assert_close(filter_logits(x, top_k=2), only([1, 2, 3], x), "ties: logits >= the k-th largest stay")


def test_top_p_keeps_the_token_that_crosses_p(filter_logits):
    # 0.5 alone does not reach 0.6; 0.5 + 0.3 does.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, top_p=0.6), only([0, 1], x), "the token that crosses p")


def test_top_p_takes_the_most_likely_first_wherever_they_stand(filter_logits):
    x = logits(0.15, 0.5, 0.05, 0.3)
    assert_close(filter_logits(x, top_p=0.6), only([1, 3], x), "the order: back from sorted to the ids")


def test_top_p_keeps_at_least_one_token(filter_logits):
    x = logits(0.3, 0.6, 0.1)
    assert_close(filter_logits(x, top_p=0.01), only([1], x), "the token that crosses p, the first one too")


def test_of_equally_likely_tokens_top_p_keeps_the_lower_ids(filter_logits):
    # A quarter each: two of them reach a half.
    x = tensor([7.0, 7.0, 7.0, 7.0])
    assert_close(filter_logits(x, top_p=0.5), only([0, 1], x), "ties: as few as reach p, sorted stably")


def test_min_p_is_relative_to_the_largest_probability(filter_logits):
    # 0.2 of 0.5 is 0.1.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, min_p=0.2), only([0, 1, 2], x), "min_p times the largest probability")


def test_min_p_of_one_keeps_all_of_the_largest(filter_logits):
    x = tensor([2.0, 1.0, 2.0])
    assert_close(filter_logits(x, min_p=1.0), only([0, 2], x))


@pytest.mark.parametrize("widest", [{"top_k": 4}, {"top_k": 50}, {"top_p": 1.0}, {"min_p": 0.0}], ids=str)
def test_the_widest_limits_keep_everything(filter_logits, widest):
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, **widest), x)


def test_the_temperature_comes_before_top_p(filter_logits):
    # Halving it squares the probabilities: 0.25 of 0.365 is 0.68 already, where 0.5 was too little.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, temperature=0.5, top_p=0.6), only([0], 2 * x), "the order of the filters")


def test_the_temperature_comes_before_min_p(filter_logits):
    # 0.3 / 0.5 is above 0.5, its square is not.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, temperature=0.5, min_p=0.5), only([0], 2 * x), "the order of the filters")


def test_top_p_is_of_what_top_k_has_left(filter_logits):
    # Of 0.5 + 0.3 the first is 0.625, enough by itself.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, top_k=2, top_p=0.6), only([0], x), "the order of the filters")


def test_top_p_is_of_more_than_min_p_will_leave(filter_logits):
    # min_p drops what is below 0.25. Were it first, 0.5 of the remaining 0.8 would be enough for top_p.
    x = logits(0.5, 0.3, 0.15, 0.05)
    assert_close(filter_logits(x, top_p=0.6, min_p=0.5), only([0, 1], x), "the order of the filters")


def test_temperature_zero_keeps_the_first_of_the_largest_as_it_is(filter_logits):
    x = tensor([1.0, 3.0, 3.0, 2.0])
    assert_close(filter_logits(x, temperature=0.0), only([1], x))


def test_each_row_is_filtered_by_itself(filter_logits):
    # Of each row two are left by top_k; half of 0.5 keeps the 0.3 beside it, half of 0.9 drops the 0.06.
    low, high = logits(0.5, 0.3, 0.2), 30 + logits(0.06, 0.9, 0.04)
    out = filter_logits(torch.stack([low, high])[:, None], top_k=2, min_p=0.5)
    assert_close(out, torch.stack([only([0, 1], low), only([1], high)])[:, None], "k and maximum of each row")


def test_what_was_dropped_before_stays_dropped(filter_logits):
    x = only([1, 2], logits(0.5, 0.3, 0.2))
    assert_close(filter_logits(x, temperature=2.0, top_k=3, top_p=0.99, min_p=0.01), x / 2)


def test_each_filter_cuts_the_tail_in_its_own_way(filter_logits, plot):
    logits = tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5])
    ways = {"top_k=3": {"top_k": 3}, "top_p=0.8": {"top_p": 0.8}, "min_p=0.1": {"min_p": 0.1}}
    before, filtered = logits.softmax(-1), {label: filter_logits(logits, **way) for label, way in ways.items()}
    labels = {"xlabel": "token", "ylabel": "probability"}
    for label, kept in filtered.items():
        plot(range(8), {"before": before, label: kept.softmax(-1)}, "bars", title=label, ylim=(0, 0.65), **labels)
    hot = {f"temperature {t}": filter_logits(logits, t).softmax(-1) for t in (0.5, 1.0, 2.0)}
    plot(range(8), hot, "bars", title="the temperature cuts nothing", ylim=(0, 0.65), **labels)
    # Of the probabilities .40 .24 .15 .09 .05 .03 .02 .01 the first three reach .79, four reach .8; .1 · .40 is .04.
    assert [int(t.isfinite().sum()) for t in filtered.values()] == [3, 4, 5]


def test_top_p_of_one_keeps_all_however_unlikely(filter_logits):
    # e^-30 is 1e-13: in float32 the first two alone sum to 1.
    assert_close(filter_logits(tensor([0.0, -20.0, -30.0]), top_p=1.0), tensor([0.0, -20.0, -30.0]))


def test_probabilities_are_summed_in_at_least_float32(filter_logits):
    # A thousand equal tokens: 333 of them reach 0.333, 334 are needed for 0.3335. bfloat16 cannot count them.
    kept = filter_logits(tensor([0.0] * 1000, torch.bfloat16), top_p=0.3335).isfinite().sum()
    assert_close(kept, tensor(334), "the dtype in which probabilities are added up")


@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 1e4])
def test_extreme_temperatures_neither_overflow_nor_lose_the_order(filter_logits, temperature):
    logits = tensor([1.0, 3.0, 2.0])
    kept = filter_logits(logits, temperature)
    assert_close(kept, logits / temperature, "the division by the temperature")
    assert_close(filter_logits(logits, temperature, 1).argmax(-1), tensor(1))


@pytest.mark.parametrize("n", [1023, 1100, 65_540])
def test_top_k_counts_every_token_however_many_there_are(filter_logits, n):
    logits = torch.arange(float(n), device=tensor(0.0).device)
    for k in (1, n // 2, n - 1):
        kept = filter_logits(logits, 1.0, k).isfinite()
        assert_close(kept.nonzero().flatten(), torch.arange(n - k, n, device=kept.device), "blocks of tokens")


@pytest.mark.exact
@pytest.mark.parametrize("n", [33, 1025, 70_000])
def test_top_p_finds_the_most_likely_among_many(filter_logits, n):
    # Three tokens have 1/2, 1/4 and 1/8 of the probability, and stand far apart; all others share the last eighth.
    logits = torch.full((n,), math.log(1 / 8 / (n - 3)), device=tensor(0.0).device)
    places = torch.tensor([n - 1, 0, n // 2])
    logits[places] = tensor([math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)])
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.8, 3)):
        found = filter_logits(logits, top_p=top_p).isfinite().nonzero().flatten()
        assert_close(found, places[:kept].sort().values.to(found.device), "blocks of tokens")


def test_a_temperature_near_zero_is_no_zero(filter_logits):
    # At 1e-6 both of the largest stay, and the third lies half a million below them.
    kept = filter_logits(tensor([1.0, 1.0, 0.5]), 1e-6)
    assert_close(kept, tensor([1e6, 1e6, 5e5]), "temperature 0 alone is greedy")


def test_a_low_temperature_does_not_make_half_precision_overflow(filter_logits):
    # 10 / 1e-4 = 100,000 is beyond float16, and so is 90,000: which is larger must be seen before they are rounded.
    kept = filter_logits(tensor([10.0, 9.0, -9.0], torch.float16), 1e-4, 1)
    assert_close(kept > -math.inf, tensor([True, False, False]), "the division in float32")


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"temperature": -1.0}, r"temperature must not be negative, and finite, got -1\.0"),
        ({"temperature": math.inf}, "temperature must not be negative, and finite, got inf"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0\.0"),
        ({"top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1\.5"),
        ({"min_p": -0.5}, r"min_p must lie in \[0, 1\], got -0\.5"),
        ({"min_p": 1.5}, r"min_p must lie in \[0, 1\], got 1\.5"),
    ],
)
def test_values_that_mean_nothing_are_refused(filter_logits, bad, sentence):
    with pytest.raises(ValueError, match=f"filter_logits: {sentence}"):
        filter_logits(torch.ones(3), **bad)


@pytest.mark.refusal
def test_a_vocabulary_of_nothing_is_refused(filter_logits):
    with pytest.raises(ValueError, match=r"filter_logits: vocab must be at least 1, got shape \[2, 0\]"):
        filter_logits(torch.ones(2, 0))
