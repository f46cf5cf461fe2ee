"""The gradient of SiLU: grad times the slope at x, which is half at zero, one far above and zero far below."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_the_sigmoid_and_its_own_slope_both_count(silu_backward):
    # sigmoid(ln 3) = 3/4. The slope is 3/4 + 1.098612 * 3/4 * 1/4, and 4 times that is 3 + 0.823959.
    grad_x = silu_backward(tensor([4.0]), tensor([math.log(3)]))
    assert_close(grad_x, tensor([3.823959]), "x * sigmoid(x) is a product: two terms, of which the second holds x")


def test_below_zero_the_second_term_is_taken_away(silu_backward):
    # sigmoid(-ln 3) = 1/4. The slope is 1/4 - 1.098612 * 1/4 * 3/4, and 4 times that is 1 - 0.823959.
    assert_close(
        silu_backward(tensor([4.0]), tensor([-math.log(3)])), tensor([0.176041]), "the sign of the second term"
    )


def test_at_zero_half_of_it_comes_back(silu_backward):
    assert_close(silu_backward(tensor([6.0]), tensor([0.0])), tensor([3.0]))


def test_at_the_minimum_nothing_comes_back(silu_backward):
    # At -1.278465 the curve is level: 1 + x * sigmoid(-x) = 0.
    assert_close(silu_backward(tensor([5.0]), tensor([-1.278465])), tensor([0.0]))


def test_beyond_the_minimum_the_sign_is_the_other(silu_backward):
    # sigmoid(-2) = 0.119203, and 0.119203 * (1 - 2 * 0.880797) = -0.090784.
    grad_x = silu_backward(tensor([10.0]), tensor([-2.0]))
    assert_close(grad_x, tensor([-0.907843]), "the slope at x, and not at y")


def test_each_number_has_a_slope_and_a_gradient_of_its_own(silu_backward):
    grad, x = tensor([[[4.0, -4.0], [6.0, 0.0]]]), tensor([[[-math.log(3), math.log(3)], [0.0, 2.0]]])
    grad_x = silu_backward(grad, x)
    assert_close(grad_x, tensor([[[0.176041, -3.823959], [3.0, 0.0]]]), "grad: it comes first, x second")


def test_a_number_alone_needs_no_axis(silu_backward):
    assert_close(silu_backward(tensor(4.0), tensor(math.log(3))), tensor(3.823959))


def test_at_ten_thousand_it_passes_as_it_is_and_at_minus_ten_thousand_it_is_shut_off(silu_backward):
    # With e^-x written out, the second would be inf / inf; with e^x, the first.
    grad_x = silu_backward(tensor([3.0, 3.0]), tensor([1e4, -1e4]))
    assert_close(grad_x, tensor([3.0, 0.0]), "exp of a large number")


def test_the_largest_numbers_of_float16_pass_too(silu_backward):
    grad, x = tensor([3.0, 3.0], torch.float16), tensor([65504.0, -65504.0], torch.float16)
    assert_close(silu_backward(grad, x), tensor([3.0, 0.0], torch.float16), "exp of a large number")


@pytest.mark.tensors
def test_it_has_the_dtype_of_x_whatever_grad_has(silu_backward):
    grad_x = silu_backward(tensor([6.0], torch.float32), tensor([0.0], torch.bfloat16))
    assert_close(grad_x, tensor([3.0], torch.bfloat16), "the gradient of x is like x")


def test_the_slope_rises_from_zero_to_one_and_a_little_beyond_on_both_sides(silu_backward, plot):
    x = tensor(torch.linspace(-6, 6, 121).tolist())
    slope = silu_backward(torch.ones_like(x), x)
    curves = {"slope of silu": slope, "sigmoid": torch.sigmoid(x), "slope of relu": (x > 0).to(x.dtype)}
    plot(x, curves, xlabel="x", title="how much of a gradient comes back")
    # What it lacks at -x it has at x.
    assert_close(slope + slope.flip(0), torch.ones_like(x))


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(silu_backward):
    with pytest.raises(ValueError, match=r"silu_backward: x must be \[...\] with ...=\(2, 3\), got \[2, 6\]"):
        silu_backward(torch.ones(2, 3), torch.ones(2, 6))


@pytest.mark.refusal
def test_integers_are_refused(silu_backward):
    with pytest.raises(ValueError, match="silu_backward: x must be float, got int64"):
        silu_backward(torch.ones(2, 6), torch.ones(2, 6, dtype=torch.int64))
