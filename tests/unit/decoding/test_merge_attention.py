"""Merge attention: the mean of both parts, each weighted by the sum of the exponentials of its scores."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)
NOTHING, NAN = -math.inf, math.nan


@pytest.mark.parametrize(
    ("lse_a", "lse_b", "merged", "lse"), [(0.0, LOG3, 14.0, LOG4), (LOG3, 0.0, 10.0, LOG4), (LOG2, LOG2, 12.0, LOG4)]
)
def test_each_part_is_weighted_by_the_exponential_of_its_lse(merge_attention, lse_a, lse_b, merged, lse):
    # 1 and 3: (1 · 8 + 3 · 16) / 4 = 14. 3 and 1: 10. 2 and 2: 12. The sum is 4 each time.
    y, sums = merge_attention(tensor([8.0]), tensor(lse_a), tensor([16.0]), tensor(lse_b))
    assert_close(y, tensor([merged]), "the weights: exp(lse), and which is whose")
    assert_close(sums, tensor(lse), "lse: the logarithm of the sum of both sums")


def test_every_query_has_weights_of_its_own_and_all_its_features_share_them(merge_attention):
    # Two heads and two queries. Weights of b: 3/4, 1/4, 1/2 and 3/4 of 10.
    y_a, y_b = torch.zeros_like(tensor([[[0.0] * 5] * 2] * 2)), tensor([[[4.0, 8.0, 12.0, 16.0, 20.0]] * 2] * 2)
    lse_a, lse_b = tensor([[0.0, LOG3], [5.0, -LOG3]]), tensor([[LOG3, 0.0], [5.0, 0.0]])
    y, lse = merge_attention(y_a, lse_a, y_b, lse_b)
    weights = tensor([[0.75, 0.25], [0.5, 0.75]])
    assert_close(y, weights[..., None] * y_b, "lse has one number for each row of y, and lacks its last axis")
    assert_close(lse, tensor([[LOG4, LOG4], [5 + LOG2, math.log(4 / 3)]]), "lse of each row")


def test_merging_the_values_of_single_keys_one_after_the_other_is_attention(merge_attention):
    # A single key has its value for y and its score for lse. Scores ln 1, ln 2 and ln 3: (1 · 6 + 2 · 12 + 3 · 24) / 6.
    y, lse = merge_attention(tensor([6.0]), tensor(0.0), tensor([12.0]), tensor(LOG2))
    y, lse = merge_attention(y, lse, tensor([24.0]), tensor(LOG3))
    assert_close(y, tensor([17.0]), "what has been merged weighs as much as all that is in it")
    assert_close(lse, tensor(math.log(6)), "what has been merged weighs as much as all that is in it")


@pytest.mark.parametrize("anything", [0.0, 100.0, NAN, math.inf])
def test_an_empty_part_has_no_influence_whatever_its_y_holds(merge_attention, anything):
    full, empty = tensor([[3.0, -2.0]]), tensor([[anything, anything]])
    for parts in ((full, tensor([5.0]), empty, tensor([NOTHING])), (empty, tensor([NOTHING]), full, tensor([5.0]))):
        y, lse = merge_attention(*parts)
        assert_close(y, full, "an empty part: 0 times NaN is NaN")
        assert_close(lse, tensor([5.0]), "an empty part: nothing is added")


@pytest.mark.parametrize("anything", [7.0, NAN])
def test_where_both_parts_are_empty_y_is_zeros_and_lse_minus_infinity(merge_attention, anything):
    # The second row is empty in one part alone.
    y_a, y_b = tensor([[anything] * 2, [anything] * 2]), tensor([[anything] * 2, [1.0, 2.0]])
    y, lse = merge_attention(y_a, tensor([NOTHING, NOTHING]), y_b, tensor([NOTHING, 4.0]))
    assert_close(y, tensor([[0.0, 0.0], [1.0, 2.0]]), "-inf less -inf, and a sum of nothing")
    assert_close(lse, tensor([NOTHING, 4.0]), "the logarithm of nothing is -inf")


@pytest.mark.parametrize("height", [-100_000.0, -1000.0, 1000.0, 100_000.0])
def test_the_difference_of_the_lse_decides_however_far_from_zero_they_are(merge_attention, height):
    # Twice as much as each alone: the mean, and ln 2 more.
    y, lse = merge_attention(tensor([8.0]), tensor(height), tensor([16.0]), tensor(height))
    assert_close(y, tensor([12.0]), "exp(1000) and exp(-1000): the larger one is subtracted first")
    assert_close(lse, tensor(height + LOG2), "exp(1000) and exp(-1000): the larger one is subtracted first")


@pytest.mark.parametrize(("lse_a", "lse_b", "larger"), [(0.0, 10_000.0, 16.0), (10_000.0, 0.0, 8.0)])
def test_far_below_the_other_a_part_has_no_weight_that_a_float_could_show(merge_attention, lse_a, lse_b, larger):
    y, lse = merge_attention(tensor([8.0]), tensor(lse_a), tensor([16.0]), tensor(lse_b))
    assert_close(y, tensor([larger]), "the larger one is subtracted, whichever that is")
    assert_close(lse, tensor(10_000.0), "the larger one is subtracted, whichever that is")


def test_lse_keeps_its_own_precision_beside_y_of_half_precision(merge_attention):
    # Rounded to bfloat16 both would be 100, and the parts weigh the same.
    y_a, y_b = tensor([8.0], torch.bfloat16), tensor([16.0], torch.bfloat16)
    lse_a, lse_b = tensor(100.0, torch.float32), tensor(100 - LOG3 / 8, torch.float32)
    y, lse = merge_attention(y_a, lse_a, y_b, lse_b)
    weight = 1 / (1 + 3 ** (1 / 8))  # of b
    assert_close(y, tensor([8 + 8 * weight], torch.bfloat16), "lse rounded to the dtype of y")
    assert_close(lse, tensor(100 + math.log(1 + 3 ** (-1 / 8)), torch.float32), "lse rounded to the dtype of y")


@pytest.mark.float64
def test_lse_in_float64_is_not_rounded_beside_y_in_float32(merge_attention):
    # In float32 a billion and a billion and one are the same.
    y, lse = merge_attention(
        tensor([8.0], torch.float32),
        tensor(1e9, torch.float64),
        tensor([16.0], torch.float32),
        tensor(1e9 + LOG3, torch.float64),
    )
    assert_close(y, tensor([14.0], torch.float32), "the widest dtype of all arguments")
    assert_close(lse, tensor(1e9 + LOG4, torch.float64), "the widest dtype of all arguments")


@pytest.mark.float64
def test_y_in_float64_is_not_rounded_beside_lse_in_float32(merge_attention):
    third = 1 / 3
    y, lse = merge_attention(
        tensor([third], torch.float64),
        tensor(2.0, torch.float32),
        tensor([third], torch.float64),
        tensor(2.0, torch.float32),
    )
    assert_close(y, tensor([third], torch.float64), "the widest dtype of all arguments; the weights sum to one")
    assert_close(lse, tensor(2 + LOG2, torch.float32))


def test_y_and_lse_have_the_dtypes_of_the_first_part(merge_attention):
    half, single = (tensor([8.0], dtype) for dtype in (torch.bfloat16, torch.float32))
    zero = tensor(0.0, torch.float32)
    y, lse = merge_attention(half, zero, 2 * single, zero)
    assert_close(y, tensor([12.0], torch.bfloat16), "the dtype of y_a")
    assert_close(lse, tensor(LOG2, torch.float32))
    y, _ = merge_attention(single, zero, 2 * half, zero)
    assert_close(y, tensor([12.0], torch.float32), "the dtype of y_a")


def test_as_one_part_grows_y_moves_from_the_other_to_it(merge_attention, plot):
    difference = torch.linspace(-6, 6, 25)
    lse_a, lse_b = tensor(difference.tolist()), tensor([0.0] * 25)
    ones = torch.ones_like(lse_a)[:, None]
    y, lse = merge_attention(ones, lse_a, -ones, lse_b)
    lines = {"y": y[:, 0], "lse": lse, "_larger": difference.clamp(min=0)}
    plot(difference, lines, title="y_a = 1, y_b = -1, lse_b = 0", xlabel="lse_a")
    # (e^d - 1) / (e^d + 1) is tanh(d / 2), and log(e^d + 1) is softplus(d).
    assert_close(y[:, 0], torch.tanh(lse_a / 2), "the weights: exp(lse), and which is whose")
    assert_close(lse, torch.nn.functional.softplus(lse_a), "lse: the logarithm of the sum of both sums")
    assert_identical(y[12], torch.zeros_like(y[12]), "where both are alike, halfway")


@pytest.mark.refusal
def test_another_number_of_lse_than_rows_is_refused(merge_attention):
    y, lse = torch.zeros(2, 5), torch.zeros(2)
    with pytest.raises(ValueError, match=r"merge_attention: lse_b must be \[\.\.\.\] with \.\.\.=\(2,\), got \[3\]"):
        merge_attention(y, lse, y, torch.zeros(3))


@pytest.mark.refusal
def test_parts_with_another_number_of_features_are_refused(merge_attention):
    lse = torch.zeros(2)
    with pytest.raises(ValueError, match="merge_attention: y_b must be .* head_dim=5, got"):
        merge_attention(torch.zeros(2, 5), lse, torch.zeros(2, 4), lse)
