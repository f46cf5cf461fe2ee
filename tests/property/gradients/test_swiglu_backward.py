"""What defines the gradient of SwiGLU, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given

from tests.cases.case import cases
from tests.cases.weights import weight
from tests.judge.assertions import assert_close, assert_identical

SIZES = "batch seq d_model d_ff"
NAMES = ("grad_x", "grad_gate", "grad_up", "grad_down")


def _arguments(case):
    """grad, x, w_gate, w_up and w_down."""
    grad, x = case.normal("batch seq d_model"), case.normal("batch seq d_model")
    return grad, x, *(weight(case, case.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff"))


def _over_tokens(left, right):
    """The sum over tokens of left · rightᵀ."""
    return left.flatten(0, -2).T @ right.flatten(0, -2)


@pytest.mark.exact
@given(case=cases(SIZES))
def test_of_open_gates_it_is_the_gradient_of_the_plain_product(swiglu_backward, case):
    # All of x and of w_gate is positive, so every gate lies above 50.
    grad, x = case.normal("batch seq d_model"), case.uniform("batch seq d_model", 1, 2)
    w_gate, w_up = case.uniform("d_ff d_model", 50, 1e3), case.uniform("d_ff d_model", 0.5, 1.5)
    w_down = case.uniform("d_model d_ff", 0.5, 1.5)
    gate, up, hidden = x @ w_gate.T, x @ w_up.T, grad @ w_down
    expected = (
        (hidden * up) @ w_gate + (hidden * gate) @ w_up,
        _over_tokens(hidden * up, x),
        _over_tokens(hidden * gate, x),
        _over_tokens(grad, gate * up),
    )
    for name, actual, right in zip(NAMES, swiglu_backward(grad, x, w_gate, w_up, w_down), expected, strict=True):
        assert_close(actual, right, "exp of a large number; the gradients of gate and up exchanged", name=name)


@given(case=cases(SIZES))
def test_through_shut_gates_nothing_comes_back(swiglu_backward, case):
    # All of x and of -w_gate is positive, so every gate lies below -50.
    grad, _, _, w_up, w_down = _arguments(case)
    x, w_gate = case.uniform("batch seq d_model", 1, 2), case.uniform("d_ff d_model", -1e3, -50)
    for name, gradient in zip(NAMES, swiglu_backward(grad, x, w_gate, w_up, w_down), strict=True):
        assert_close(gradient, torch.zeros_like(gradient), "which of gate and up is activated", name=name)


@given(case=cases(SIZES))
def test_a_gate_and_its_negation_give_back_what_no_activation_would(swiglu_backward, case):
    # silu(g) - silu(-g) = g, and so the slopes at g and -g are 1 together.
    grad, x, w_gate, w_up, w_down = _arguments(case)
    _, grad_gate, grad_up, grad_down = swiglu_backward(grad, x, w_gate, w_up, w_down)
    _, of_negated, up_of_negated, down_of_negated = swiglu_backward(grad, x, -w_gate, w_up, w_down)
    gate, up, hidden = x @ w_gate.T, x @ w_up.T, grad @ w_down
    assert_close(grad_gate + of_negated, _over_tokens(hidden * up, x), "the slope of the gate's activation")
    assert_close(grad_up - up_of_negated, _over_tokens(hidden * gate, x), "the activation of the gate")
    assert_close(grad_down - down_of_negated, _over_tokens(grad, gate * up), "the hidden values")


@given(case=cases(SIZES))
def test_gates_of_zero_give_half_back_to_themselves_and_nothing_to_all_others(swiglu_backward, case):
    grad, x, w_gate, w_up, w_down = _arguments(case)
    grad_x, grad_gate, grad_up, grad_down = swiglu_backward(grad, x, torch.zeros_like(w_gate), w_up, w_down)
    assert_close(grad_gate, _over_tokens((grad @ w_down) * (x @ w_up.T), x) / 2)
    for name, gradient in (("grad_x", grad_x), ("grad_up", grad_up), ("grad_down", grad_down)):
        assert_close(gradient, torch.zeros_like(gradient), name=name)


@given(case=cases(SIZES))
def test_where_up_is_zero_it_alone_gets_what_comes_back(swiglu_backward, case):
    grad, x, w_gate, w_up, w_down = _arguments(case)
    _, grad_gate, of_zero, grad_down = swiglu_backward(grad, x, w_gate, torch.zeros_like(w_up), w_down)
    assert_close(grad_gate, torch.zeros_like(grad_gate), "the gradient of the gate is multiplied by up")
    assert_close(grad_down, torch.zeros_like(grad_down), "the hidden values are multiplied by up")
    _, _, grad_up, _ = swiglu_backward(grad, x, w_gate, w_up, w_down)
    assert_close(grad_up, of_zero, "the gradient of up does not depend on up")


@given(case=cases(SIZES))
def test_all_but_the_gradient_of_w_down_are_linear_in_w_down(swiglu_backward, case):
    grad, x, w_gate, w_up, w_down = _arguments(case)
    more = weight(case, w_down.shape)
    a, b, both = (swiglu_backward(grad, x, w_gate, w_up, w) for w in (w_down, more, w_down - 2 * more))
    for name, of_a, of_b, of_both in zip(NAMES[:3], a, b, both, strict=False):
        assert_close(of_both, of_a - 2 * of_b, "grad goes back through w_down, once", name=name)
    assert_close(both[3], a[3], "the gradient of w_down does not depend on w_down")


@given(case=cases(SIZES))
def test_up_and_down_get_equally_much_along_themselves(swiglu_backward, case):
    # Twice as large a row of w_up does what twice as large a column of w_down does.
    grad, x, w_gate, w_up, w_down = _arguments(case)
    _, _, grad_up, grad_down = swiglu_backward(grad, x, w_gate, w_up, w_down)
    assert_close((grad_up * w_up).sum(dim=1), (grad_down * w_down).sum(dim=0), "the gradients of up and of down")


@given(case=cases(SIZES, d_ff=(2, 11)))
def test_the_order_of_the_hidden_features_is_that_of_the_gradients(swiglu_backward, case):
    grad, x, w_gate, w_up, w_down = _arguments(case)
    order = case.permutation(case.d_ff)
    grad_x, grad_gate, grad_up, grad_down = swiglu_backward(grad, x, w_gate, w_up, w_down)
    permuted = swiglu_backward(grad, x, w_gate[order], w_up[order], w_down[:, order])
    for actual, right in zip(permuted, (grad_x, grad_gate[order], grad_up[order], grad_down[:, order]), strict=True):
        assert_close(actual, right, "a feature of the middle and its neighbours: nothing is between them")


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_token_has_any_influence_on_the_gradient_of_x(swiglu_backward, case):
    grad, x, *weights = _arguments(case)
    changed, other = x.clone(), grad.clone()
    token = case.seed % case.seq
    changed[:, token], other[:, token] = 100 * case.normal("batch d_model"), case.normal("batch d_model")
    others = [i for i in range(case.seq) if i != token]
    before, after = swiglu_backward(grad, x, *weights)[0], swiglu_backward(other, changed, *weights)[0]
    assert_identical(after[:, others], before[:, others])
