"""What defines SiLU, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close

MINIMUM = -0.27846454276107379


@given(case=cases("batch seq n", target.ALL))
def test_it_is_never_below_its_minimum(silu, case):
    below = (silu(case.normal("batch seq n", 3.0)) - MINIMUM).clamp(max=0)
    assert_close(below, torch.zeros_like(below))


@given(case=cases("batch seq n"))
def test_x_and_its_negation_share_x_between_them(silu, case):
    # sigmoid(x) + sigmoid(-x) = 1.
    x = case.normal("batch seq n", 3.0)
    assert_close(silu(x) - silu(-x), x)


@given(case=cases("batch seq n"))
def test_the_share_of_x_grows_by_e_for_each_unit_of_x(silu, case):
    # sigmoid(x) / sigmoid(-x) = e^x. It is what tells SiLU from GELU, ReLU and SiLU with another slope.
    x = case.away_from_zero("batch seq n")
    assert_close(silu(x), -silu(-x) * x.exp())


@given(case=cases("batch seq n", target.ALL))
def test_large_numbers_pass_as_they_are(silu, case):
    x = case.uniform("batch seq n", 50, 1e4)
    assert_close(silu(x), x)


@given(case=cases("batch seq n", target.ALL))
def test_numbers_far_below_zero_are_shut_off(silu, case):
    x = case.uniform("batch seq n", -1e4, -50)
    assert_close(silu(x), torch.zeros_like(x))


@pytest.mark.tensors
@given(case=cases("batch seq n", target.ALL))
def test_the_slope_is_one_far_above_zero_and_zero_far_below(silu, case):
    x = (case.uniform("batch seq n", 50, 1e4) * case.normal("batch seq n").sign()).requires_grad_()
    silu(x).sum().backward()
    assert_close(x.grad, (x > 0).to(case.dtype), "exp of a large number, in the backward pass")
