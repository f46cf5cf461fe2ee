"""What defines the gradient of SiLU, whatever the sizes. That it is the derivative is in every_layer/."""

import torch
from hypothesis import given

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close

SIZES = "batch seq n"
LEVEL = -1.2784645427610738
"""Where SiLU has its minimum."""
STEEPEST = 1.099839320128867
"""The largest slope, which it has at 2.3994."""


@given(case=cases(SIZES))
def test_the_slopes_at_x_and_at_its_negation_are_one_together(silu_backward, case):
    # silu(x) - silu(-x) = x.
    grad, x = case.normal(SIZES), case.normal(SIZES, 3.0)
    assert_close(silu_backward(grad, x) + silu_backward(grad, -x), grad)


@given(case=cases(SIZES))
def test_the_slopes_at_x_and_at_its_negation_differ_by_that_of_x_times_tanh_of_half_of_it(silu_backward, case):
    # silu(x) + silu(-x) = x * tanh(x / 2). It is what tells SiLU from GELU, ReLU and a sigmoid that is held constant.
    grad, x = case.normal(SIZES), case.normal(SIZES, 3.0)
    tanh = (x / 2).tanh()
    expected = grad * (tanh + x / 2 * (1 - tanh.square()))
    assert_close(silu_backward(grad, x) - silu_backward(grad, -x), expected, "the slope of the sigmoid, times x")


@given(case=cases(SIZES, target.ALL))
def test_at_zero_it_is_halved(silu_backward, case):
    grad = case.normal(SIZES)
    assert_close(silu_backward(grad, torch.zeros_like(grad)), grad / 2)


@given(case=cases(SIZES))
def test_at_the_minimum_nothing_comes_back(silu_backward, case):
    grad = case.normal(SIZES)
    assert_close(silu_backward(grad, torch.full_like(grad, LEVEL)), torch.zeros_like(grad))


@given(case=cases(SIZES, target.ALL))
def test_no_gradient_grows_by_more_than_a_tenth(silu_backward, case):
    grad, x = case.normal(SIZES), case.normal(SIZES, 3.0)
    beyond = (silu_backward(grad, x).abs() - STEEPEST * grad.abs()).clamp(min=0)
    assert_close(beyond, torch.zeros_like(beyond))


@given(case=cases(SIZES, target.ALL))
def test_far_above_zero_it_passes_as_it_is_and_far_below_it_is_shut_off(silu_backward, case):
    grad, x = case.normal(SIZES), case.uniform(SIZES, 50, 1e4) * case.normal(SIZES).sign()
    assert_close(silu_backward(grad, x), torch.where(x > 0, grad, 0.0), "exp of a large number")
