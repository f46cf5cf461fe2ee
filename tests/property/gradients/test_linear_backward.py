"""What defines the gradient of linear, whatever the sizes. That it is the derivative is in every_layer/."""

import torch
from hypothesis import given

from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical

SIZES = "batch seq d_in d_out"


def drawn(case):
    return case.upstream("batch seq d_out"), case.normal("batch seq d_in"), case.normal("d_out d_in")


@given(case=cases(SIZES))
def test_both_gradients_measure_the_same_result(linear_backward, case):
    # sum(grad · (weight · x)) can be read as a sum over x and as one over the weight.
    grad, x, weight = drawn(case)
    grad_x, grad_weight = linear_backward(grad, x, weight)
    whole = (grad * (x @ weight.T)).sum()
    assert_close((grad_x * x).sum(), whole, "grad_x: down the columns of the weight")
    assert_close((grad_weight * weight).sum(), whole, "grad_weight: the sum over all tokens")


@given(case=cases(SIZES))
def test_each_single_output_sends_back_its_row_of_the_weight(linear_backward, case):
    _, x, weight = drawn(case)
    identity = torch.eye(case.d_out, dtype=case.dtype, device=weight.device)
    grad_x, _ = linear_backward(identity, x[0, :1].repeat(case.d_out, 1), weight)
    assert_close(grad_x, weight, "grad_x: down the columns of the weight")


@given(case=cases(SIZES, d_in=(2, 11)))
def test_a_square_weight_is_not_turned(linear_backward, case):
    # Ones at one place: output `target` reads input `source` and no other.
    source, target = case.seed % case.d_in, (case.seed + 1) % case.d_in
    grad, x = case.upstream("batch seq d_in"), case.normal("batch seq d_in")
    weight = torch.zeros_like(case.normal("d_in d_in"))
    weight[target, source] = 1.0
    grad_x, grad_weight = linear_backward(grad, x, weight)
    expected = torch.zeros_like(x)
    expected[..., source] = grad[..., target]
    assert_close(grad_x, expected, "the weight is [d_out d_in]")
    along = (grad[..., target] * x[..., source]).sum()
    assert_close(grad_weight[target, source], along, "grad_weight is [d_out d_in], like the weight")


@given(case=cases(SIZES))
def test_the_gradient_of_x_is_linear_in_the_weight_and_does_not_depend_on_x(linear_backward, case):
    (grad, x, weight), other = drawn(case), case.normal("d_out d_in")
    of_weight, of_other = (linear_backward(grad, x, w)[0] for w in (weight, other))
    assert_close(linear_backward(grad, 3 * x, weight + 2 * other)[0], of_weight + 2 * of_other)


@given(case=cases(SIZES))
def test_the_gradient_of_the_weight_is_linear_in_x_and_does_not_depend_on_the_weight(linear_backward, case):
    (grad, x, weight), other = drawn(case), case.normal("batch seq d_in")
    of_x, of_other = (linear_backward(grad, at, weight)[1] for at in (x, other))
    assert_close(linear_backward(grad, x + 2 * other, 3 * weight)[1], of_x + 2 * of_other)


@given(case=cases(SIZES))
def test_the_gradient_of_the_weight_is_the_sum_over_the_tokens(linear_backward, case):
    grad, x, weight = drawn(case)
    tokens = zip(grad.flatten(0, 1), x.flatten(0, 1), strict=True)
    each = [linear_backward(towards, token, weight)[1] for towards, token in tokens]
    assert_close(linear_backward(grad, x, weight)[1], sum(each), "the sum over all leading axes, and no mean")


@given(case=cases(SIZES))
def test_the_order_of_the_tokens_does_not_matter_for_the_weight(linear_backward, case):
    grad, x, weight = drawn(case)
    order = case.permutation(case.batch * case.seq)
    grad_x, grad_weight = linear_backward(grad.flatten(0, 1)[order], x.flatten(0, 1)[order], weight)
    of_x, of_weight = linear_backward(grad, x, weight)
    assert_close(grad_weight, of_weight, "a sum: the last token is like the others")
    assert_close(grad_x, of_x.flatten(0, 1)[order])


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_token_has_any_influence_on_the_gradient_of_x(linear_backward, case):
    (grad, x, weight), token = drawn(case), case.seed % case.seq
    other, changed = grad.clone(), x.clone()
    other[:, token], changed[:, token] = 100 * case.upstream("batch d_out"), 100 * case.normal("batch d_in")
    others = [i for i in range(case.seq) if i != token]
    before, after = linear_backward(grad, x, weight)[0], linear_backward(other, changed, weight)[0]
    assert_identical(after[:, others], before[:, others])
