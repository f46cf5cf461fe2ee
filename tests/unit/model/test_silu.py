"""SiLU: each number times its sigmoid; a ReLU with a smooth bend."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_a_number_is_multiplied_by_its_sigmoid(silu):
    # sigmoid(ln 3) = 3 / (3 + 1), and 1.098612 · 3/4 = 0.823959.
    assert_close(silu(tensor([math.log(3)])), tensor([0.823959]))


def test_a_negative_number_is_damped_but_keeps_its_sign(silu):
    # sigmoid(-ln 3) = 1/4, and -1.098612 / 4 = -0.274653.
    assert_close(silu(tensor([-math.log(3)])), tensor([-0.274653]))


def test_zero_stays_zero(silu):
    assert_close(silu(tensor([0.0])), tensor([0.0]))


def test_the_minimum_is_minus_0_278465_at_minus_1_278465(silu):
    # There 1 + x · sigmoid(-x) = 0, which makes the value 1 + x.
    assert_close(silu(tensor([-1.278465])), tensor([-0.278465]))


def test_each_number_is_activated_by_itself(silu):
    x = tensor([[[0.0, math.log(3)], [-math.log(3), 100.0]]])
    assert_close(silu(x), tensor([[[0.0, 0.823959], [-0.274653, 100.0]]]))


def test_a_number_alone_needs_no_axis(silu):
    assert_close(silu(tensor(math.log(3))), tensor(0.823959))


def test_ten_thousand_passes_as_it_is_and_minus_ten_thousand_is_shut_off(silu):
    # Written as x · e^x / (1 + e^x), the first would be inf / inf.
    assert_close(silu(tensor([1e4, -1e4])), tensor([1e4, 0.0]), "exp of a large number")


@pytest.mark.tensors
def test_the_slope_at_zero_is_a_half(silu):
    x = tensor([0.0]).requires_grad_()
    silu(x).sum().backward()
    assert_close(x.grad, tensor([0.5]))


@pytest.mark.tensors
def test_the_slope_at_the_minimum_is_zero(silu):
    x = tensor([-1.278465]).requires_grad_()
    silu(x).sum().backward()
    assert_close(x.grad, tensor([0.0]))


@pytest.mark.tensors
def test_the_slope_is_one_at_ten_thousand_and_zero_at_minus_ten_thousand(silu):
    # Written as x / (1 + e^-x), the value at -10000 is right and the slope is 0 · inf.
    x = tensor([1e4, -1e4]).requires_grad_()
    silu(x).sum().backward()
    assert_close(x.grad, tensor([1.0, 0.0]), "exp of a large number, in the backward pass")


def test_it_is_relu_with_a_round_corner_that_dips_below_zero(silu, plot):
    x = tensor(torch.linspace(-6, 6, 121).tolist())
    curves = {"silu": silu(x), "relu": x.relu(), "gelu": torch.nn.functional.gelu(x)}
    plot(x, curves, xlabel="x", title="silu beside relu and gelu", ylim=(-0.5, 3), xlim=(-6, 3))
    # relu less silu is |x| · sigmoid(-|x|), the same on both sides.
    assert_close(x.relu() - silu(x), x.abs() * torch.sigmoid(-x.abs()))


@pytest.mark.refusal
def test_integers_are_refused(silu):
    with pytest.raises(ValueError, match="silu: x must be float, got int64"):
        silu(torch.ones(2, 6, dtype=torch.int64))
