"""What defines the gradient of softmax, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical

SIZES = "batch seq n"
THE_SUM = "the sum over the row: every x is in the denominator of every y"


def probabilities(case):
    """What softmax returns."""
    return case.normal(SIZES, 2.0).double().softmax(dim=-1).to(case.dtype)


@given(case=cases(SIZES))
def test_what_the_scores_of_a_row_gain_and_lose_cancels(softmax_backward, case):
    # As raising all scores alike changes nothing.
    sums = softmax_backward(case.normal(SIZES), probabilities(case)).sum(dim=-1)
    assert_close(sums, torch.zeros_like(sums), THE_SUM)


@pytest.mark.exact
@given(case=cases(SIZES))
def test_adding_a_constant_to_the_grad_of_a_row_changes_nothing(softmax_backward, case):
    # The probabilities sum to one, so what they all have in common has no effect.
    grad, constant, y = case.normal(SIZES), case.uniform("batch seq 1", -20, 20).round(), probabilities(case)
    assert_close(softmax_backward(grad + constant, y), softmax_backward(grad, y), THE_SUM)


@given(case=cases(SIZES))
def test_a_score_raises_another_probability_as_much_as_that_ones_score_raises_its_own(softmax_backward, case):
    # dy_j/dx_i = dy_i/dx_j: the matrix of slopes is symmetric.
    one, other, y = case.normal(SIZES), case.normal(SIZES), probabilities(case)
    there, back = (softmax_backward(one, y) * other).sum(dim=-1), (softmax_backward(other, y) * one).sum(dim=-1)
    assert_close(there, back, "y is a factor once outside of the bracket and once in the sum")


@given(case=cases(SIZES, target.ALL))
def test_the_largest_grad_of_a_row_never_lowers_its_score_and_the_smallest_never_raises_it(softmax_backward, case):
    grad, y = case.normal(SIZES), probabilities(case)
    grad_x = softmax_backward(grad, y)
    upper, lower = (grad_x.gather(-1, of[..., None]) for of in (grad.argmax(dim=-1), grad.argmin(dim=-1)))
    assert_close(upper.clamp(max=0), torch.zeros_like(upper), "the sign of the sum: it is subtracted")
    assert_close(lower.clamp(min=0), torch.zeros_like(lower), "the sign of the sum: it is subtracted")


@given(case=cases(SIZES, target.ALL))
def test_where_one_is_certain_the_gradient_is_zero_everywhere(softmax_backward, case):
    grad, certain = case.normal(SIZES), case.normal(SIZES).argsort(dim=-1) == 0
    grad_x = softmax_backward(grad, certain.to(case.dtype))
    assert_identical(grad_x, torch.zeros_like(grad_x), "y is what softmax returned: no softmax of it")


@given(case=cases(SIZES, target.ALL, n=(2, 13)))
def test_probabilities_of_zero_get_exactly_zero_and_change_nothing_for_the_others(softmax_backward, case):
    grad, y, left = case.normal(SIZES), probabilities(case), 1 + case.seed % (case.n - 1)
    y[..., left:] = 0
    grad_x = softmax_backward(grad, y)
    assert_identical(grad_x[..., left:], torch.zeros_like(grad_x[..., left:]))
    assert_close(grad_x[..., :left], softmax_backward(grad[..., :left], y[..., :left]))


@given(case=cases(SIZES))
def test_permuting_a_row_permutes_the_gradient(softmax_backward, case):
    grad, y, order = case.normal(SIZES), probabilities(case), case.permutation(case.n)
    assert_close(softmax_backward(grad[..., order], y[..., order]), softmax_backward(grad, y)[..., order])


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_row_has_any_influence(softmax_backward, case):
    grad, y, row = case.normal(SIZES), probabilities(case), case.seed % case.seq
    other, changed = grad.clone(), y.clone()
    other[:, row], changed[:, row] = case.normal("batch n", 1e4), probabilities(case)[:, row]
    others = [i for i in range(case.seq) if i != row]
    before, after = softmax_backward(grad, y), softmax_backward(other, changed)
    assert_identical(after[:, others], before[:, others], "the axis of the sum")


@given(case=cases(SIZES))
def test_along_grad_the_slope_is_the_variance_of_grad(softmax_backward, case):
    # sum_i grad_i * y_i * (grad_i - mean): how far grad is spread under these probabilities. It is never negative.
    grad, y = case.normal(SIZES), probabilities(case)
    variance = ((grad - (grad * y).sum(dim=-1, keepdim=True)).square() * y).sum(dim=-1)
    assert_close((softmax_backward(grad, y) * grad).sum(dim=-1), variance, THE_SUM)
