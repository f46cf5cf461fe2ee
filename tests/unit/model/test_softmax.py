"""Softmax: scores become probabilities, each in proportion to e to the power of its score."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical, fail
from tests.judge.tolerances import tolerance


def test_each_probability_is_proportional_to_e_to_its_score(softmax):
    # The powers are 1, 2 and 5, and their sum is 8.
    assert_close(softmax(tensor([0.0, math.log(2), math.log(5)])), tensor([0.125, 0.25, 0.625]))


def test_equal_scores_share_alike(softmax):
    assert_close(softmax(tensor([7.0, 7.0, 7.0, 7.0])), tensor([0.25, 0.25, 0.25, 0.25]))


def test_a_single_score_has_probability_one(softmax):
    assert_close(softmax(tensor([[-3.0], [5.0]])), tensor([[1.0], [1.0]]))


def test_each_row_of_the_last_axis_is_a_distribution_of_its_own(softmax):
    x = tensor([[[0.0, math.log(3)], [math.log(4), 0.0]], [[0.0, 0.0], [math.log(9), 0.0]]])
    expected = tensor([[[0.25, 0.75], [0.8, 0.2]], [[0.5, 0.5], [0.9, 0.1]]])
    assert_close(softmax(x), expected, "the axis of the sum: it is the last one")


def test_a_large_score_does_not_overflow(softmax):
    # e^1000 has no float, but what is 1000 below the largest has probability 0.
    assert_close(softmax(tensor([1000.0, 0.0, 0.0])), tensor([1.0, 0.0, 0.0]), "subtract the row's maximum before exp")


def test_scores_that_are_all_far_below_zero_still_sum_to_one(softmax):
    # e^-1000 is 0 in any float, and 0 / 0 is no probability.
    expected = tensor([1.0, 0.0, 0.0])
    assert_close(softmax(tensor([-1000.0, -2000.0, -2000.0])), expected, "subtract the row's maximum before exp")


def test_each_row_has_a_maximum_of_its_own(softmax):
    x = tensor([[1000.0, 0.0], [-2000.0, -1000.0]])
    assert_close(softmax(x), tensor([[1.0, 0.0], [0.0, 1.0]]), "the maximum: it is the row's own, not the tensor's")


def test_a_score_of_minus_infinity_gets_exactly_zero(softmax):
    assert_identical(softmax(tensor([0.0, -math.inf, 3.0]))[1], tensor(0.0))


def test_the_others_share_what_a_score_of_minus_infinity_leaves(softmax):
    assert_close(softmax(tensor([math.log(3), -math.inf, 0.0])), tensor([0.75, 0.0, 0.25]))


@pytest.mark.tensors
def test_what_a_score_gains_the_others_lose(softmax):
    # dy0/dx = y0 · (1 - y0), -y0 · y1, with y0 = 1/4 and y1 = 3/4.
    x = tensor([0.0, math.log(3)]).requires_grad_()
    softmax(x)[0].backward()
    assert_close(x.grad, tensor([0.1875, -0.1875]))


@pytest.mark.tensors
def test_no_gradient_reaches_a_score_of_minus_infinity(softmax):
    x = tensor([0.0, -math.inf, math.log(3)]).requires_grad_()
    softmax(x)[0].backward()
    assert_close(x.grad, tensor([0.1875, 0.0, -0.1875]), "0 · inf or inf - inf in the backward pass")


def test_seventy_thousand_shares_in_float16_still_sum_to_one(softmax):
    # float16 ends at 65504: a sum of 70000 ones is infinity there, and every share of it nothing.
    total = softmax(tensor([0.0] * 70_000, torch.float16)).float().sum()
    assert_close(total, torch.ones_like(total), "the sum: in at least float32", within=tolerance(torch.float16))


def test_a_row_of_nothing_but_minus_infinity_has_no_probabilities(softmax):
    # 0 / 0: there is no largest logit to subtract, and no token that could have the probability.
    y = softmax(tensor([[-math.inf, -math.inf], [0.0, -math.inf]]))
    if not y[0].isnan().all():
        fail(f"out[0] is {y[0].tolist()} but should be nan: a row without a possible token is an error further up")
    assert_close(y[1], tensor([1.0, 0.0]))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2048, 2049, 4096])
def test_minus_infinity_at_the_ends_of_blocks_is_zero(softmax, n):
    # Two possible entries, and all else is -inf: at the end of one block of 1,024, and at the beginning of the next.
    for place in (0, n // 2, n - 1):
        x = tensor([-math.inf] * n)
        x[place] = x[(place + 1) % n] = 3.0
        expected = tensor([0.0] * n)
        expected[place] = expected[(place + 1) % n] = 0.5
        assert_close(softmax(x), expected, "blocks in which every entry is -inf")


@pytest.mark.parametrize("size", [1e30, 2e38, 3.4e38])
def test_logits_at_the_ends_of_float32_do_not_overflow(softmax, size):
    assert_close(
        softmax(tensor([[-size, -size], [size, size], [size, -size]])), tensor([[0.5, 0.5], [0.5, 0.5], [1, 0.0]])
    )


def test_the_further_apart_the_scores_the_more_the_largest_takes(softmax, plot):
    # A temperature divides the scores: a low one drives them apart, a high one brings them together.
    scores, temperature = torch.tensor([2.0, 1.0, 0.0, -1.0]), 2 ** torch.linspace(-3, 4, 36)
    shares = softmax(tensor((scores / temperature[:, None]).tolist()))
    lines = {f"score {score:g}": share for score, share in zip(scores, shares.T, strict=True)}
    labels = {"xlabel": "temperature", "ylabel": "probability"}
    plot(temperature, lines, title="softmax(scores / temperature)", xscale="log", ylim=(0, 1.02), **labels)
    colder = {f"temperature {t:g}": softmax(tensor((scores / t).tolist())) for t in (0.5, 1.0, 4.0)}
    plot(range(4), colder, "bars", title="three temperatures", xlabel="token", ylim=(0, 1.02))
    assert (shares[:, 0].diff() <= 0).all()
    assert (shares[:, 3].diff() >= 0).all()


@pytest.mark.refusal
def test_a_row_without_a_score_is_refused(softmax):
    with pytest.raises(ValueError, match=r"softmax: needs at least one score in a row, got shape \[2, 0\]"):
        softmax(torch.ones(2, 0))


@pytest.mark.refusal
def test_a_scalar_is_refused(softmax):
    with pytest.raises(ValueError, match=r"softmax: x must be \[\.\.\. n\], got \[\]"):
        softmax(torch.tensor(1.0))


@pytest.mark.refusal
def test_integers_are_refused(softmax):
    with pytest.raises(ValueError, match="softmax: x must be float, got int64"):
        softmax(torch.ones(2, 6, dtype=torch.int64))


@pytest.mark.refusal
def test_a_call_without_scores_and_one_with_too_much_are_refused_in_its_name(softmax):
    with pytest.raises(TypeError, match="softmax: missing a required argument: 'x'"):
        softmax()
    with pytest.raises(TypeError, match="softmax: got an unexpected keyword argument 'axis'"):
        softmax(torch.ones(2), axis=0)
