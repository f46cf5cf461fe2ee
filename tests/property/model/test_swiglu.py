"""What defines SwiGLU, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given

from tests.cases.case import Case, cases
from tests.cases.weights import weight
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import word


def arguments(case):
    """x, w_gate, w_up and w_down."""
    x = case.normal("batch seq d_model")
    return x, *(weight(case, case.shape(axes)) for axes in ("d_ff d_model", "d_ff d_model", "d_model d_ff"))


@given(case=cases("batch seq d_model d_ff"))
def test_the_result_is_linear_in_w_up(swiglu, case):
    x, w_gate, w_up, w_down = arguments(case)
    more = weight(case, w_up.shape)
    expected = swiglu(x, w_gate, w_up, w_down) - 2 * swiglu(x, w_gate, more, w_down)
    assert_close(swiglu(x, w_gate, w_up - 2 * more, w_down), expected, "the up-projection: it is not activated")


@given(case=cases("batch seq d_model d_ff"))
def test_the_result_is_linear_in_w_down(swiglu, case):
    x, w_gate, w_up, w_down = arguments(case)
    more = weight(case, w_down.shape)
    expected = swiglu(x, w_gate, w_up, w_down) - 2 * swiglu(x, w_gate, w_up, more)
    assert_close(swiglu(x, w_gate, w_up, w_down - 2 * more), expected, "an activation after the product")


@given(case=cases("batch seq d_model d_ff"))
def test_a_gate_and_its_negation_differ_by_the_plain_product(swiglu, case):
    # silu(g) - silu(-g) = g.
    x, w_gate, w_up, w_down = arguments(case)
    difference = swiglu(x, w_gate, w_up, w_down) - swiglu(x, -w_gate, w_up, w_down)
    assert_close(difference, ((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T, "the activation of the gate")


@given(case=cases("batch seq d_model d_ff", d_ff=(1, 1)))
def test_a_gate_and_its_negation_stand_in_the_ratio_of_e_to_the_gate(swiglu, case):
    # silu(g) = -silu(-g) · e^g. It is what tells SwiGLU from GEGLU, ReGLU and a gate with another slope.
    _, w_gate, w_up, w_down = arguments(case)
    x = case.uniform("batch seq d_model", -1, 1)
    expected = -swiglu(x, -w_gate, w_up, w_down) * (x @ w_gate.T).exp()
    assert_close(swiglu(x, w_gate, w_up, w_down), expected, "the activation of the gate")


@given(case=cases("batch seq d_model d_ff"))
def test_an_open_gate_is_passed_as_it_is(swiglu, case):
    # All of x and of w_gate is positive, so every gate lies above 50.
    x, w_gate = case.uniform("batch seq d_model", 1, 2), case.uniform("d_ff d_model", 50, 1e3)
    w_up, w_down = case.uniform("d_ff d_model", 0.5, 1.5), case.uniform("d_model d_ff", 0.5, 1.5)
    expected = ((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T
    assert_close(swiglu(x, w_gate, w_up, w_down), expected, "exp of a large number")


@given(case=cases("batch seq d_model d_ff"))
def test_a_shut_gate_lets_nothing_through(swiglu, case):
    # All of x and of -w_gate is positive, so every gate lies below -50.
    _, w_gate, w_up, w_down = arguments(case)
    x, w_gate = case.uniform("batch seq d_model", 1, 2), case.uniform("d_ff d_model", -1e3, -50)
    assert_close(swiglu(x, w_gate, w_up, w_down), torch.zeros_like(x), "which of gate and up is activated")


@given(case=cases("batch seq d_model d_ff"))
def test_zero_gate_zero_out(swiglu, case):
    x, w_gate, w_up, w_down = arguments(case)
    assert_close(swiglu(x, torch.zeros_like(w_gate), w_up, w_down), torch.zeros_like(x))


@given(case=cases("batch seq d_model d_ff", d_ff=(2, 11)))
def test_the_order_of_the_hidden_features_does_not_matter(swiglu, case):
    x, w_gate, w_up, w_down = arguments(case)
    order = case.permutation(case.d_ff)
    out = swiglu(x, w_gate[order], w_up[order], w_down[:, order])
    assert_close(out, swiglu(x, w_gate, w_up, w_down), "a sum over the hidden features, and nothing between them")


@given(case=cases("batch seq d_model d_ff", seq=(2, 7)))
def test_no_other_token_has_any_influence(swiglu, case):
    x, *weights = arguments(case)
    token = case.seed % case.seq
    changed = x.clone()
    changed[:, token] = 100 * case.normal("batch d_model")
    others = [i for i in range(case.seq) if i != token]
    assert_identical(swiglu(changed, *weights)[:, others], swiglu(x, *weights)[:, others])


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
@pytest.mark.parametrize(("cancelling", "d_model", "d_ff"), [(1, 8192, 1), (2, 8192, 1), (3, 3, 8192)])
def test_long_sums_that_cancel_are_right_in_half_precision(swiglu, cancelling, d_model, d_ff, dtype):
    # In w_gate, w_up or w_down the second half of a row takes away what the first has added up to. There is a single
    # hidden feature where each has such a sum: of many the errors would cancel too.
    case = Case({"batch": 2, "seq": 16, "d_model": d_model, "d_ff": d_ff}, dtype, seed=0, positive=True)
    given = arguments(case)
    given[cancelling][:, 4096:] *= -1
    assert_equals_formula(swiglu, *given, look_at="sums of parts that are rounded before they are added up")
