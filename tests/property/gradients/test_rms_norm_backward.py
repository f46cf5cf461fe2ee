"""What defines the gradient of RMSNorm, whatever the sizes. That it is the derivative is in every_layer/."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical

SIZES = "batch seq d_model"


@given(case=cases(SIZES))
def test_it_is_orthogonal_to_x_where_the_weight_is_one_and_eps_zero(rms_norm_backward, case):
    grad, x = case.normal(SIZES), case.away_from_zero(SIZES)
    grad_x, _ = rms_norm_backward(grad, x, torch.ones_like(x[0, 0]), eps=0.0)
    left = (grad_x * x).sum(dim=-1) / (grad * x).abs().sum(dim=-1)
    assert_close(left, torch.zeros_like(left), "the term of the statistic: a longer x makes no longer y")


@given(case=cases(SIZES), factor=st.sampled_from([0.125, 0.5, 4.0]))
def test_of_a_longer_x_it_is_smaller_by_as_much(rms_norm_backward, case, factor):
    grad, x, weight = case.normal(SIZES), case.away_from_zero(SIZES), case.normal("d_model")
    grad_x, grad_weight = rms_norm_backward(grad, x, weight, eps=0.0)
    of_longer, same_weight = rms_norm_backward(grad, factor * x, weight, eps=0.0)
    assert_close(factor * of_longer, grad_x)
    assert_close(same_weight, grad_weight)


@given(case=cases(SIZES))
def test_the_weight_counts_as_a_part_of_grad(rms_norm_backward, case):
    grad, x, weight = case.normal(SIZES), case.away_from_zero(SIZES), case.normal("d_model")
    grad_x, grad_weight = rms_norm_backward(grad, x, weight)
    of_product, without = rms_norm_backward(grad * weight, x, torch.ones_like(weight))
    assert_close(of_product, grad_x)
    assert_close(grad_weight * weight, without, "the weight is not in its own gradient")


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_token_has_any_influence_on_the_gradient_of_x(rms_norm_backward, case):
    grad, x, weight = case.normal(SIZES), case.away_from_zero(SIZES), case.normal("d_model")
    changed, other = x.clone(), grad.clone()
    changed[:, -1], other[:, -1] = 100 * case.normal("batch d_model"), case.normal("batch d_model")
    before, after = rms_norm_backward(grad, x, weight)[0], rms_norm_backward(other, changed, weight)[0]
    assert_identical(after[:, :-1], before[:, :-1], "the axis of the mean")


@given(case=cases(SIZES, d_model=(2, 9)))
def test_permuting_the_features_permutes_both_gradients(rms_norm_backward, case):
    grad, x, weight = case.normal(SIZES), case.away_from_zero(SIZES), case.normal("d_model")
    order = case.permutation(case.d_model)
    grad_x, grad_weight = rms_norm_backward(grad, x, weight)
    permuted, of_weight = rms_norm_backward(grad[..., order], x[..., order], weight[order])
    assert_close(permuted, grad_x[..., order])
    assert_close(of_weight, grad_weight[order])


@given(case=cases(SIZES), eps=st.sampled_from([1e-6, 1e-3, 1.0]))
def test_far_below_eps_it_is_that_of_a_multiple(rms_norm_backward, case, eps):
    # There y is x * weight / sqrt(eps), a linear function of x.
    grad, x, weight = case.normal(SIZES), case.normal(SIZES, 1e-10), case.normal("d_model")
    grad_x, _ = rms_norm_backward(grad, x, weight, eps)
    assert_close(grad_x * eps**0.5, grad * weight, "eps is the one passed")
