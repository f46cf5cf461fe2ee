"""What defines quantising a weight, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical, fail

SIZES = "d_out n d_in"
"""A run has d_in inputs here, and an output n runs."""
LIMITS = {8: 127, 4: 7}


def runs(t, case):
    """The inputs of each run along an axis of their own."""
    return t.unflatten(1, (case.n, case.d_in))


def made(case, codes, scales):
    """The weight of these codes, [d_out n d_in], with a scale for each run."""
    return (codes.to(case.dtype) * scales.to(case.dtype)[..., None]).flatten(1)


def some_codes(case, bits):
    """Codes of all kinds, of which the first of each run is the largest or its negative."""
    codes = case.integers(SIZES, 2 * LIMITS[bits] + 1) - LIMITS[bits]
    codes[..., 0] = LIMITS[bits] * (1 - 2 * case.integers("d_out n", 2))
    return codes


def powers_of_two(case):
    """Scales for which no quotient is rounded."""
    return 2.0 ** (case.integers("d_out n", 9) - 6)


@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_no_weight_is_off_by_more_than_half_a_scale(quantize, case, bits):
    weight = case.normal("d_out n d_in").flatten(1)
    codes, scales = quantize(weight, bits=bits, group=case.d_in)
    error = (runs(weight, case) - runs(codes, case) * scales[..., None].to(case.dtype)).abs()
    excess = (error - scales[..., None].to(case.dtype) / 2).clamp(min=0)
    assert_close(excess, torch.zeros_like(excess), "the nearest code")


@given(case=cases(SIZES, target.ALL), bits=st.sampled_from((8, 4)))
def test_the_largest_magnitude_of_a_run_has_the_largest_code_and_none_lies_beyond(quantize, case, bits):
    weight = case.away_from_zero(SIZES).flatten(1)
    codes, scales = quantize(weight, bits=bits, group=case.d_in)
    magnitudes = runs(weight, case).abs()
    largest = magnitudes.max(dim=-1)
    of_largest = runs(codes, case).gather(-1, largest.indices[..., None])
    right = LIMITS[bits] * runs(weight, case).gather(-1, largest.indices[..., None]).sign()
    assert_identical(of_largest, right.to(torch.int8), "the largest magnitude: 127 or 7, or its negative")
    if (codes.int().abs() > LIMITS[bits]).any():
        fail(f"a code is {codes.int().abs().max().item()}, beyond {LIMITS[bits]}", "the range is symmetric")
    assert_close(LIMITS[bits] * scales.float(), largest.values.float())


@pytest.mark.exact
@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_what_was_held_in_codes_has_the_same_codes_again(quantize, case, bits):
    codes, scales = some_codes(case, bits), case.uniform("d_out n", 0.01, 2.0)
    found, _ = quantize(made(case, codes, scales), bits=bits, group=case.d_in)
    assert_identical(found, codes.flatten(1).to(torch.int8))


@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_in_the_middle_of_two_codes_the_even_one_is_taken(quantize, case, bits):
    # Halves of a scale that is a power of two, which every float dtype has exactly.
    codes = some_codes(case, bits)
    halves = codes + 0.5 * (codes.abs() < LIMITS[bits])
    found, _ = quantize(made(case, halves, powers_of_two(case)), bits=bits, group=case.d_in)
    even = torch.where(codes.abs() == LIMITS[bits], codes, 2 * torch.div(codes + 1, 2, rounding_mode="floor"))
    assert_identical(found, even.flatten(1).to(torch.int8), "a half: round to the even neighbour")


@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_a_run_of_zeros_has_scale_0_and_codes_0_and_leaves_the_others_as_they_are(quantize, case, bits):
    weight, empty = case.away_from_zero(SIZES), case.booleans("d_out n")
    codes, scales = quantize(weight.flatten(1), bits=bits, group=case.d_in)
    cleared = weight.masked_fill(empty[..., None], -0.0)
    found, scales_found = quantize(cleared.flatten(1), bits=bits, group=case.d_in)
    assert_identical(scales_found, scales.masked_fill(empty, 0.0), "a run of zeros: its scale is 0")
    assert_identical(runs(found, case), runs(codes, case).masked_fill(empty[..., None], 0), "a run of zeros: codes 0")


@given(case=cases(SIZES, target.ALL), bits=st.sampled_from((8, 4)))
def test_negating_a_weight_negates_its_codes(quantize, case, bits):
    weight = case.normal("d_out n d_in").flatten(1)
    codes, scales = quantize(weight, bits=bits, group=case.d_in)
    found, scales_found = quantize(-weight, bits=bits, group=case.d_in)
    assert_identical(found, -codes, "the same below zero as above")
    assert_identical(scales_found, scales)


@pytest.mark.exact
@given(case=cases(SIZES), bits=st.sampled_from((8, 4)), power=st.sampled_from([-60, -7, 1, 60]))
def test_scaling_a_weight_by_a_power_of_two_scales_its_scales_and_nothing_else(quantize, case, bits, power):
    weight = case.normal("d_out n d_in").flatten(1)
    codes, scales = quantize(weight, bits=bits, group=case.d_in)
    found, scales_found = quantize(weight * 2.0**power, bits=bits, group=case.d_in)
    assert_identical(found, codes, "no least scale, and none at most")
    assert_identical(scales_found * 2.0**-power, scales)


@given(case=cases(SIZES), bits=st.sampled_from((8, 4)))
def test_each_run_is_what_it_would_be_alone(quantize, case, bits):
    weight = case.normal("d_out n d_in")
    codes, scales = quantize(weight.flatten(1), bits=bits, group=case.d_in)
    o, run = case.seed % case.d_out, case.seed % case.n
    codes_alone, scales_alone = quantize(weight[o : o + 1, run], bits=bits, group=case.d_in)
    assert_identical(codes_alone, runs(codes, case)[o : o + 1, run], "a scale is that of one run of one output")
    assert_identical(scales_alone, scales[o : o + 1, run : run + 1])


@given(case=cases(SIZES, [torch.bfloat16, torch.float16]), bits=st.sampled_from((8, 4)))
def test_a_weight_in_half_precision_is_held_as_the_same_numbers_in_float32(quantize, case, bits):
    weight = case.normal("d_out n d_in").flatten(1)
    codes, scales = quantize(weight, bits=bits, group=case.d_in)
    of_single, scales_of_single = quantize(weight.float(), bits=bits, group=case.d_in)
    assert_identical(codes, of_single, "w / scale in float32")
    assert_identical(scales, scales_of_single, "scales: in float32 whatever the dtype of the weight")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@given(case=cases(SIZES, target.ALL))
def test_a_weight_one_of_which_is_not_finite_is_a_value_error(quantize, case, bad):
    weight = case.normal("d_out n d_in").flatten(1)
    weight.view(-1)[case.seed % weight.numel()] = bad
    with pytest.raises(ValueError, match="."):
        quantize(weight, bits=8, group=case.d_in)


@given(case=cases(SIZES, d_in=(2, 11)))
def test_inputs_of_a_run_that_is_not_full_are_not_left_out(quantize, case):
    weight = case.normal("d_out n d_in").flatten(1)
    with pytest.raises((ValueError, RuntimeError), match="."):  # that of a reshape will do here
        quantize(weight[:, 1:].contiguous(), bits=8, group=case.d_in)
