"""What defines the linear layer, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import word


@given(case=cases("batch seq d_in d_out"))
def test_the_result_for_a_sum_is_the_sum_of_the_results(linear, case):
    x, y, weight = case.normal("batch seq d_in"), case.normal("batch seq d_in"), case.normal("d_out d_in")
    assert_close(linear(x + y, weight), linear(x, weight) + linear(y, weight))


@given(case=cases("batch seq d_in d_out"), factor=st.sampled_from([-1e3, -1.0, 0.0, 0.5, 1e3]))
def test_scaling_x_scales_the_result(linear, case, factor):
    x, weight = case.normal("batch seq d_in"), case.normal("d_out d_in")
    assert_close(linear(factor * x, weight), factor * linear(x, weight), "a bias, or an activation")


@given(case=cases("batch seq d_in d_out"))
def test_the_result_is_linear_in_the_weight(linear, case):
    x, v, w = case.normal("batch seq d_in"), case.normal("d_out d_in"), case.normal("d_out d_in")
    assert_close(linear(x, v + 2 * w), linear(x, v) + 2 * linear(x, w))


@given(case=cases("d_in d_out"))
def test_each_single_input_reads_out_its_column_of_the_weight(linear, case):
    weight = case.normal("d_out d_in")
    identity = torch.eye(case.d_in, dtype=case.dtype, device=weight.device)
    assert_close(linear(identity, weight), weight.T)


@given(case=cases("d_in", d_in=(2, 11)))
def test_a_square_weight_is_not_transposed(linear, case):
    # Ones at one place: input `source` reaches output `target` and no other.
    source, target = case.seed % case.d_in, (case.seed + 1) % case.d_in
    weight = torch.zeros_like(case.normal("d_in d_in"))
    weight[target, source] = 1.0
    x = case.normal("d_in")
    expected = torch.zeros_like(x)
    expected[target] = x[source]
    assert_close(linear(x, weight), expected, "a transposed weight: it is [d_out d_in]")


@given(case=cases("batch seq d_in d_out", seq=(2, 7)))
def test_no_other_token_has_any_influence(linear, case):
    x, weight, token = case.normal("batch seq d_in"), case.normal("d_out d_in"), case.seed % case.seq
    changed = x.clone()
    changed[:, token] = 100 * case.normal("batch d_in")
    others = [i for i in range(case.seq) if i != token]
    assert_identical(linear(changed, weight)[:, others], linear(x, weight)[:, others])


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
def test_long_sums_that_cancel_are_right_in_half_precision(linear, dtype):
    # The first half of each row adds up to some 2,500, and the second takes it away again.
    case = Case({"batch": 3, "d_in": 8192, "d_out": 5}, dtype, seed=0, positive=True)
    x, weight = case.normal("batch d_in"), case.normal("d_out d_in")
    weight[:, 4096:] *= -1
    assert_equals_formula(linear, x, weight, look_at="sums of parts that are rounded before they are added up")
