"""Softmax: turn any scores into probabilities, over the last axis."""

import math

import pytest
import torch

from tests.assertions import assert_close
from tests.strategies import tensor


def test_powers_of_e_are_divided_by_their_sum(softmax):
    # exp(ln 1), exp(ln 2), exp(ln 5) = 1, 2, 5 of 8.
    assert_close(softmax(tensor([0.0, math.log(2), math.log(5)])), tensor([0.125, 0.25, 0.625]))


def test_equal_scores_share_equally(softmax):
    assert_close(softmax(tensor([7.0, 7.0, 7.0, 7.0])), tensor([0.25, 0.25, 0.25, 0.25]))


def test_each_row_is_its_own_distribution(softmax):
    x = tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    assert_close(softmax(x), tensor([[0.25, 0.75], [0.8, 0.2]]), "the axis: it is the last one")


def test_one_score_alone_is_certain(softmax):
    assert_close(softmax(tensor([[-3.0], [1e4]])), tensor([[1.0], [1.0]]))


def test_minus_infinity_gets_exactly_zero(softmax):
    assert softmax(tensor([0.0, -math.inf, 0.0]))[1] == 0


def test_huge_scores_do_not_overflow(softmax):
    assert_close(softmax(tensor([1e30, 1e30, -1e30])), tensor([0.5, 0.5, 0.0]), "subtract the largest score first")


@pytest.mark.refusal
def test_a_row_without_scores_is_refused(softmax):
    with pytest.raises(ValueError, match=r"softmax: needs at least one score in a row, got shape \[2, 0\]"):
        softmax(torch.ones(2, 0))


@pytest.mark.refusal
def test_a_list_is_refused(softmax):
    with pytest.raises((TypeError, AttributeError)):
        softmax([1.0, 2.0])
