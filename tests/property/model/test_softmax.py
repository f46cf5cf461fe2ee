"""What defines softmax, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical, fail


def ladders(case, step):
    """0, 1, 2, ... times step, in another order in each row."""
    return case.uniform("batch seq n").argsort(dim=-1).to(case.dtype) * step


def with_impossible_scores(case):
    """Some scores of -inf, but never all of a row."""
    x, possible = case.normal("batch seq n", 3.0), case.seed % case.n
    hidden = case.booleans("batch seq n")
    hidden[..., possible] = False
    return x.masked_fill(hidden, -math.inf)


@given(case=cases("batch seq n", target.ALL))
def test_every_row_sums_to_one(softmax, case):
    sums = softmax(case.normal("batch seq n", 3.0)).sum(dim=-1)
    assert_close(sums, torch.ones_like(sums))


@given(case=cases("batch seq n", target.ALL))
def test_no_probability_is_negative(softmax, case):
    if (softmax(case.normal("batch seq n", 30.0)) < 0).any():
        fail("a probability is negative")


@given(case=cases("batch seq n"))
def test_adding_a_constant_to_a_row_changes_nothing(softmax, case):
    # Multiples of 1/4 and whole numbers, so that the sum is not rounded.
    x, constant = ladders(case, 0.25), case.uniform("batch seq 1", -50, 50).round()
    assert_close(softmax(x + constant), softmax(x))


@given(case=cases("batch seq n"))
def test_permuting_the_scores_permutes_the_probabilities(softmax, case):
    x, order = case.normal("batch seq n", 3.0), case.permutation(case.n)
    assert_close(softmax(x[..., order]), softmax(x)[..., order])


@given(case=cases("batch seq n", target.ALL, n=(2, 13)))
def test_a_larger_score_has_a_larger_probability(softmax, case):
    x = ladders(case, 0.25)
    ascending = softmax(x).gather(-1, x.argsort(dim=-1))
    if (ascending.diff(dim=-1) <= 0).any():
        fail("a larger score has no larger probability")


@given(case=cases("batch seq n", n=(2, 13)))
def test_a_score_that_is_greater_by_d_is_e_to_the_d_times_as_likely(softmax, case):
    x = case.normal("batch seq n")
    y = softmax(x)
    assert_close(y[..., :1] / y, (x[..., :1] - x).exp())


@given(case=cases("batch seq n", target.ALL))
def test_rows_at_ten_thousand_and_at_minus_ten_thousand_stand_side_by_side(softmax, case):
    # The largest is so far above the next that it is certain.
    x = ladders(case, 200) + 1e4 * case.normal("batch seq 1").sign()
    certain = x == x.amax(dim=-1, keepdim=True)
    assert_close(softmax(x), certain.to(case.dtype), "the maximum that is subtracted: it is the row's own")


@given(case=cases("batch seq n", target.ALL))
def test_no_finite_score_overflows(softmax, case):
    limit = torch.finfo(case.dtype).max / 2
    x = ladders(case, 1).clamp(max=1) * -limit
    assert_close(softmax(x), (x == 0).to(case.dtype))
    assert_close(softmax(x + limit), (x == 0).to(case.dtype))


@given(case=cases("batch seq n", seq=(2, 7)))
def test_no_other_row_has_any_influence(softmax, case):
    x, row = case.normal("batch seq n", 3.0), case.seed % case.seq
    changed = x.clone()
    changed[:, row] = case.normal("batch n", 1e4)
    others = [i for i in range(case.seq) if i != row]
    assert_identical(softmax(changed)[:, others], softmax(x)[:, others], "the axis of the maximum and of the sum")


@given(case=cases("batch seq n", target.ALL))
def test_scores_of_minus_infinity_get_exactly_zero(softmax, case):
    x = with_impossible_scores(case)
    impossible = softmax(x)[x == -math.inf]
    assert_identical(impossible, torch.zeros_like(impossible))


@given(case=cases("batch seq n", n=(2, 13)))
def test_scores_of_minus_infinity_change_nothing_for_the_others(softmax, case):
    x, left = case.normal("batch seq n", 3.0), 1 + case.seed % (case.n - 1)
    hidden = x.clone()
    hidden[..., left:] = -math.inf
    assert_close(softmax(hidden)[..., :left], softmax(x[..., :left]))


@pytest.mark.tensors
@given(case=cases("batch seq n"))
def test_the_gradients_of_a_row_cancel(softmax, case):
    # As raising all scores alike changes nothing, beside scores of minus infinity too.
    x = with_impossible_scores(case).requires_grad_()
    (softmax(x) * case.normal("batch seq n")).sum().backward()
    sums = x.grad.sum(dim=-1)
    assert_close(sums, torch.zeros_like(sums), "a sum that is held constant in the backward pass, or 0 · inf in it")
