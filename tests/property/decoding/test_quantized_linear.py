"""What defines a linear layer of codes and scales, whatever the sizes. That it equals the naive loops is in
every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import word

SIZES = "batch seq d_out n d_in"
"""A run has d_in inputs here, and there are n runs."""


def x_of(case):
    return case.normal([case.batch, case.seq, case.n * case.d_in])


def codes_of(case, bits=8):
    limit = 2 ** (bits - 1) - 1
    return (case.integers("d_out n d_in", 2 * limit + 1) - limit).flatten(1).to(torch.int8)


def scales_of(case):
    return case.uniform("d_out n", 0.001, 1 / 64).to(torch.float32)


def weight_of(case, codes, scales):
    """What the codes stand for."""
    return codes.to(case.dtype) * scales.to(case.dtype).repeat_interleave(case.d_in, dim=1)


@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_it_is_the_linear_layer_of_the_weight_that_the_codes_stand_for(quantized_linear, case, bits):
    x, codes, scales = x_of(case), codes_of(case, bits), scales_of(case)
    assert_close(quantized_linear(x, codes, scales), x @ weight_of(case, codes, scales).T, "codes · scales")


@given(case=cases("d_out n d_in"))
def test_each_single_input_reads_out_its_column_of_the_weight(quantized_linear, case):
    codes, scales = codes_of(case), scales_of(case)
    identity = torch.eye(codes.shape[1], dtype=case.dtype, device=codes.device)
    assert_close(quantized_linear(identity, codes, scales), weight_of(case, codes, scales).T, "which scale it has")


@given(case=cases(SIZES), factor=st.sampled_from([-1e3, -1.0, 0.0, 0.5, 1e3]))
def test_the_result_is_linear_in_x(quantized_linear, case, factor):
    x, other, codes, scales = x_of(case), x_of(case), codes_of(case), scales_of(case)
    y = quantized_linear(x + factor * other, codes, scales)
    expected = quantized_linear(x, codes, scales) + factor * quantized_linear(other, codes, scales)
    assert_close(y, expected, "a bias, or x in few bits")


@given(case=cases(SIZES))
def test_the_result_is_linear_in_the_scales(quantized_linear, case):
    x, codes = x_of(case), codes_of(case)
    # Of few digits, so that their sum is exact in float32.
    scales, others = (case.integers("d_out n", 64).to(torch.float32) / 4096 for _ in "ab")
    y = quantized_linear(x, codes, scales + 2 * others)
    assert_close(y, quantized_linear(x, codes, scales) + 2 * quantized_linear(x, codes, others))


@given(case=cases(SIZES))
def test_the_runs_add_up(quantized_linear, case):
    x, codes, scales = x_of(case), codes_of(case), scales_of(case)
    parts = zip(x.split(case.d_in, dim=-1), codes.split(case.d_in, dim=-1), scales.split(1, dim=-1), strict=True)
    total = sum(quantized_linear(*(t.contiguous() for t in part)) for part in parts)
    assert_close(quantized_linear(x, codes, scales), total, "which scale a run has")


@given(case=cases(SIZES))
def test_a_run_may_be_cut_into_shorter_ones_with_the_same_scale(quantized_linear, case):
    x, codes, scales = x_of(case), codes_of(case), scales_of(case)
    of_each_input = scales.repeat_interleave(case.d_in, dim=1)
    assert_close(quantized_linear(x, codes, of_each_input), quantized_linear(x, codes, scales))


@given(case=cases(SIZES))
def test_negating_the_codes_negates_the_result(quantized_linear, case):
    x, codes, scales = x_of(case), codes_of(case), scales_of(case)
    assert_close(quantized_linear(x, -codes, scales), -quantized_linear(x, codes, scales), "codes: signed")


@given(case=cases(SIZES, n=(2, 5)))
def test_where_the_scale_is_0_the_codes_have_no_influence(quantized_linear, case):
    x, codes, scales, run = x_of(case), codes_of(case), scales_of(case), case.seed % case.n
    scales[:, run] = 0
    others = codes.clone()
    others[:, run * case.d_in : (run + 1) * case.d_in] = codes_of(case)[:, : case.d_in]
    assert_close(quantized_linear(x, others, scales), quantized_linear(x, codes, scales), "a scale of 0")


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_token_has_any_influence(quantized_linear, case):
    x, codes, scales, token = x_of(case), codes_of(case), scales_of(case), case.seed % case.seq
    changed = x.clone()
    changed[:, token] = 100 * x_of(case)[:, token]
    others = [i for i in range(case.seq) if i != token]
    assert_identical(quantized_linear(changed, codes, scales)[:, others], quantized_linear(x, codes, scales)[:, others])


@pytest.mark.parametrize("d_in", [16, 32, 48, 64, 96, 128, 144, 256])
@given(case=cases("d_out n", n=(1, 5)))
def test_one_token_is_computed_as_it_is_among_others(quantized_linear, case, d_in):
    case = Case({**case.sizes, "batch": 1, "seq": 3, "d_in": d_in}, case.dtype, case.seed)
    x, codes, scales = x_of(case), codes_of(case), scales_of(case)
    of_all = quantized_linear(x, codes, scales)
    assert_close(quantized_linear(x[:, :1], codes, scales), of_all[:, :1], "a path of its own for one token")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
def test_long_sums_that_cancel_are_right_in_half_precision(quantized_linear, dtype):
    # The first half of each row adds up to some thousands, and the second takes it away again.
    case = Case({"batch": 1, "seq": 3, "d_in": 1024, "n": 8, "d_out": 5}, dtype, seed=0, positive=True)
    x, codes, scales = x_of(case), codes_of(case).abs(), scales_of(case)
    codes[:, 4096:] *= -1
    assert_equals_formula(
        quantized_linear, x, codes, scales, look_at="sums of parts that are rounded before they are added up"
    )
