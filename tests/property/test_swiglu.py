"""What defines SwiGLU, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

import pytest
import torch
from hypothesis import given

from tests.assertions import assert_close, assert_finite, assert_identical
from tests.strategies import arguments, calls, cases


@given(case=calls("swiglu"))
def test_a_gate_of_zero_lets_nothing_through(swiglu, case):
    (x, w_gate, w_up, w_down), _ = arguments("swiglu", case)
    assert_close(swiglu(x, torch.zeros_like(w_gate), w_up, w_down), torch.zeros_like(x))


@given(case=calls("swiglu"))
def test_it_is_linear_in_w_up(swiglu, case):
    (x, w_gate, w_up, w_down), _ = arguments("swiglu", case)
    other = case.normal(w_up.shape)
    both = swiglu(x, w_gate, w_up - 2 * other, w_down)
    assert_close(both, swiglu(x, w_gate, w_up, w_down) - 2 * swiglu(x, w_gate, other, w_down))


@given(case=calls("swiglu"))
def test_it_is_linear_in_w_down(swiglu, case):
    (x, w_gate, w_up, w_down), _ = arguments("swiglu", case)
    other = case.normal(w_down.shape)
    both = swiglu(x, w_gate, w_up, w_down - 2 * other)
    assert_close(both, swiglu(x, w_gate, w_up, w_down) - 2 * swiglu(x, w_gate, w_up, other))


@given(case=calls("swiglu"))
def test_a_gate_wide_open_is_a_plain_product(swiglu, case):
    # Far above zero silu(z) is z, so y = w_down · ((w_gate · x) * (w_up · x)).
    (x, w_gate, w_up, w_down), _ = arguments("swiglu", case)
    x = x.abs() + 1
    w_gate = w_gate.abs() + 100
    assert_close(swiglu(x, w_gate, w_up, w_down), ((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T)


@given(case=calls("swiglu", seq=(2, 7)))
def test_no_other_token_has_any_influence(swiglu, case):
    (x, *weights), _ = arguments("swiglu", case)
    changed = x.clone()
    changed[:, -1] += 100
    assert_identical(swiglu(changed, *weights)[:, :-1], swiglu(x, *weights)[:, :-1])


@given(case=calls("swiglu"))
def test_the_order_of_the_hidden_features_does_not_matter(swiglu, case):
    (x, w_gate, w_up, w_down), _ = arguments("swiglu", case)
    order = case.permutation(case.d_ff)
    assert_close(swiglu(x, w_gate[order], w_up[order], w_down[:, order]), swiglu(x, w_gate, w_up, w_down))


@pytest.mark.tensors
@given(case=cases("batch d_model d_ff"))
def test_neither_value_nor_gradient_is_nan_at_ten_thousand(swiglu, case):
    x = (1e4 * torch.sign(case.normal("batch d_model"))).requires_grad_()
    y = swiglu(x, *(case.normal(axes) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff")))
    y.sum().backward()
    assert_finite(y)
    assert_finite(x.grad)
