"""SiLU: a smooth ReLU."""

import math

import pytest
import torch

from tests.assertions import assert_close
from tests.strategies import tensor


def test_it_is_x_times_its_sigmoid(silu):
    # sigmoid(ln 3) = 3/4 and sigmoid(-ln 3) = 1/4.
    log3 = math.log(3)
    assert_close(silu(tensor([log3, -log3])), tensor([0.75 * log3, -0.25 * log3]))


def test_zero_stays_zero(silu):
    assert_close(silu(tensor([0.0])), tensor([0.0]))


def test_its_minimum_is_minus_0_2785_near_minus_1_2785(silu):
    # At the minimum 1 + x · (1 - sigmoid(x)) = 0, where x = -1.278465 and silu(x) = x + 1.
    assert_close(silu(tensor([-1.278464543])), tensor([-0.278464543]))


def test_large_x_comes_through_and_very_negative_x_vanishes(silu):
    assert_close(silu(tensor([1e4, -1e4])), tensor([1e4, 0.0]), "exp(-x) overflows where x is very negative")


@pytest.mark.refusal
def test_integers_are_refused(silu):
    with pytest.raises(ValueError, match="silu: x must be float, got int64"):
        silu(torch.tensor([1]))
