"""What defines SiLU, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

import pytest
import torch
from hypothesis import given

from tests.assertions import assert_close, assert_finite
from tests.strategies import cases, tensor


@given(case=cases("batch seq n"))
def test_silu_of_x_minus_silu_of_minus_x_is_x(silu, case):
    # Since sigmoid(x) + sigmoid(-x) = 1.
    x = case.normal("batch seq n", 4.0)
    assert_close(silu(x) - silu(-x), x)


@given(case=cases("batch seq n"))
def test_nothing_lies_below_its_minimum_and_nothing_above_relu(silu, case):
    x = case.normal("batch seq n", 5.0)
    assert (silu(x) >= -0.27847).all()
    assert (silu(x) <= x.clamp(min=0)).all()


@given(case=cases("batch seq n"))
def test_each_element_is_computed_by_itself(silu, case):
    x = case.normal("batch seq n")
    assert_close(silu(x.flatten().flip(0)), silu(x).flatten().flip(0))


@pytest.mark.tensors
def test_neither_value_nor_gradient_is_nan_at_ten_thousand(silu):
    x = tensor([1e4, -1e4, 0.0]).requires_grad_()
    y = silu(x)
    y.sum().backward()
    assert_finite(y)
    assert_close(x.grad, tensor([1.0, 0.0, 0.5]))


@pytest.mark.tensors
def test_the_slope_is_zero_at_the_minimum(silu):
    x = tensor([-1.2784645427610738]).requires_grad_()
    silu(x).backward(torch.ones_like(x))
    assert_close(x.grad, tensor([0.0]))
