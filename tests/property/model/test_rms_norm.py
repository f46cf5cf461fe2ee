"""What defines RMSNorm, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.gradients import vjp
from tests.judge.subject import FORMULA


@given(case=cases("batch seq d_model"))
def test_the_root_mean_square_becomes_one_where_the_weight_is_one(rms_norm, case):
    x, weight = case.normal("batch seq d_model"), torch.ones_like(case.normal("d_model"))
    mean_square = rms_norm(x, weight, eps=0.0).square().mean(dim=-1)
    assert_close(mean_square, torch.ones_like(mean_square))


@given(case=cases("batch seq d_model"), factor=st.sampled_from([1e-3, 0.5, 2.0, 1e3]))
def test_scaling_x_changes_nothing_but_for_eps(rms_norm, case, factor):
    x, weight = case.normal("batch seq d_model"), case.normal("d_model")
    assert_close(rms_norm(factor * x, weight, eps=0.0), rms_norm(x, weight, eps=0.0))


@given(case=cases("batch seq d_model"))
def test_negating_x_negates_y(rms_norm, case):
    x, weight = case.normal("batch seq d_model"), case.normal("d_model")
    assert_identical(rms_norm(-x, weight), -rms_norm(x, weight))


@given(case=cases("batch seq d_model"))
def test_the_result_is_linear_in_the_weight(rms_norm, case):
    x, v, w = case.normal("batch seq d_model"), case.normal("d_model"), case.normal("d_model")
    assert_close(rms_norm(x, v + 2 * w), rms_norm(x, v) + 2 * rms_norm(x, w))


@given(case=cases("batch seq d_model", d_model=(2, 9)))
def test_the_mean_is_not_subtracted(rms_norm, case):
    # A token whose features are all alike keeps them; LayerNorm would leave nothing.
    x, weight = case.uniform("batch seq 1", 1, 100).repeat(1, 1, case.d_model), case.normal("d_model")
    assert_close(rms_norm(x, weight, eps=0.0), weight.expand_as(x))


@given(case=cases("batch seq d_model", seq=(2, 7)))
def test_no_other_token_has_any_influence(rms_norm, case):
    x, weight = case.normal("batch seq d_model"), case.normal("d_model")
    changed = x.clone()
    changed[:, -1] = 100 * case.normal("batch d_model")
    assert_identical(rms_norm(changed, weight)[:, :-1], rms_norm(x, weight)[:, :-1], "the axis of the mean")


@given(case=cases("batch seq d_model", d_model=(2, 9)))
def test_permuting_the_features_and_the_weight_permutes_the_result(rms_norm, case):
    x, weight, order = case.normal("batch seq d_model"), case.normal("d_model"), case.permutation(case.d_model)
    assert_close(rms_norm(x[..., order], weight[order]), rms_norm(x, weight)[..., order])


@given(case=cases("batch seq d_model"), eps=st.sampled_from([1e-6, 1e-3, 1.0]))
def test_eps_is_what_bounds_a_small_x(rms_norm, case, eps):
    # Far below sqrt(eps) the root is sqrt(eps) itself.
    x, weight = case.normal("batch seq d_model", 1e-10), case.normal("d_model")
    assert_close(rms_norm(x, weight, eps) * 1e10, x * weight / eps**0.5 * 1e10)


@pytest.mark.tensors
@given(case=cases("batch seq d_model", d_model=(2, 9)))
def test_the_gradient_of_x_passes_through_the_statistic(rms_norm, case):
    # y does not change along x itself (eps aside), so the gradient is orthogonal to x: their product is the sum of
    # what y sends back, less the same sum. It would not vanish if the root mean square were held constant.
    x, weight, towards = (case.normal(shape) for shape in ("batch seq d_model", "d_model", "batch seq d_model"))
    y = rms_norm(x.requires_grad_(), weight, eps=0.0)
    (gradient,) = vjp(y, [x], towards)
    left = (gradient * x).sum(dim=-1) / (y * towards).abs().sum(dim=-1)
    assert_close(left, torch.zeros_like(left))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_many_tokens_have_the_values_and_the_gradients_of_the_formula(rms_norm, dtype):
    # So many that another way to the gradient pays.
    case = Case({"tokens": 200, "d_model": 96}, dtype, seed=0)
    leaves = [case.normal(shape).requires_grad_() for shape in ("tokens d_model", "d_model")]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y, right = rms_norm(*leaves), FORMULA.rms_norm(*exact)
    assert_close(y.detach(), right.detach(), dtype=dtype)
    towards = case.normal("tokens d_model")
    for actual, expected in zip(vjp(y, leaves, towards), vjp(right, exact, towards.double()), strict=True):
        assert_close(actual, expected, dtype=dtype)
