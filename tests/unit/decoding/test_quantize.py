"""Quantize: each run of weights in whole multiples of one number, its scale."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical


def codes(*rows):
    return tensor(rows, torch.int8)


def in_float32(*rows):
    """Scales, which are float32 whatever the dtype of the weight."""
    return tensor(rows, torch.float32)


def test_a_code_counts_how_many_scales_a_weight_is(quantize):
    # The largest is 127 scales, so the scale is 2.54 / 127 = 0.02. Then 1 is 50 scales, and 0.313 is 15.65, about 16.
    found, scales = quantize(tensor([[2.54, -1.0, 0.313, 0.0]]), bits=8, group=4)
    assert_close(scales, in_float32([0.02]), "scale: the largest magnitude over 127")
    assert_identical(found, codes([127, -50, 16, 0]), "code: round(w / scale)")


def test_four_bits_count_to_seven(quantize):
    # The scale is 7 / 7 = 1. Rounded to the nearest: 3.4 is below the middle, 1.6 above.
    found, scales = quantize(tensor([[7.0, 3.4, -1.6, 0.2]]), bits=4, group=4)
    assert_close(scales, in_float32([1.0]), "bits: 2^(bits-1) - 1 is 7")
    assert_identical(found, codes([7, 3, -2, 0]))


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (4, 7)])
def test_the_largest_magnitude_may_be_a_negative_one(quantize, bits, limit):
    # Its code is -127, though int8 would hold -128 too.
    found, scales = quantize(tensor([[1.0, -float(limit), 2.0]]), bits=bits, group=3)
    assert_close(scales, in_float32([1.0]), "the largest magnitude, and not the largest weight")
    assert_identical(found, codes([1, -limit, 2]), "the range is the same on both sides of zero")


def test_a_run_without_a_positive_weight_has_a_positive_scale(quantize):
    found, scales = quantize(tensor([[-7.0, -2.0]]), bits=4, group=2)
    assert_close(scales, in_float32([1.0]))
    assert_identical(found, codes([-7, -2]))


def test_each_run_of_inputs_that_follow_each_other_has_its_own_scale(quantize):
    # Of (7, 3) the scale is 1, of (0.7, -0.4) it is 0.1. Weights 0 and 2 are no run: 0.7 would become 1.
    found, scales = quantize(tensor([[7.0, 3.0, 0.7, -0.4]]), bits=4, group=2)
    assert_close(scales, in_float32([1.0, 0.1]), "input i belongs to run i // group")
    assert_identical(found, codes([7, 3, 7, -4]))


def test_each_output_has_its_own_scales(quantize):
    found, scales = quantize(tensor([[7.0, 1.0], [0.7, -0.4]]), bits=4, group=2)
    assert_close(scales, in_float32([1.0], [0.1]), "runs lie along the inputs, which are the last axis")
    assert_identical(found, codes([7, 1], [7, -4]))


def test_in_a_run_of_one_input_each_code_is_the_largest(quantize):
    found, scales = quantize(tensor([[127.0, -254.0, 0.0]]), bits=8, group=1)
    assert_close(scales, in_float32([1.0, 2.0, 0.0]))
    assert_identical(found, codes([127, -127, 0]))


def test_a_weight_is_held_in_8_bits_and_in_runs_of_64_unless_told_otherwise(quantize):
    weight = torch.cat((torch.full((1, 64), 127.0), torch.full((1, 64), 254.0)), dim=1)
    found, scales = quantize(tensor(weight))
    assert_close(scales, in_float32([1.0, 2.0]))
    assert_identical(found, codes([127] * 128))


def test_a_weight_in_the_middle_gets_the_even_code(quantize):
    # The scale is 1. 0.5 is as near to 0 as to 1, and 0 is even; 1.5 becomes 2, and so does 2.5.
    found, scales = quantize(tensor([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]]), bits=4, group=7)
    assert_close(scales, in_float32([1.0]))
    assert_identical(found, codes([7, 0, 2, 2, 0, -2, -2]), "a half: round to the even neighbour")


def test_a_run_of_zeros_has_scale_0_and_codes_0(quantize):
    # 0 / 0 is no number. The run beside it is what it would be alone.
    found, scales = quantize(tensor([[0.0, -0.0, 7.0, 3.0]]), bits=4, group=2)
    assert_identical(scales, in_float32([0.0, 1.0]), "a run of zeros: 0 / 0")
    assert_identical(found, codes([0, 0, 7, 3]))


def test_the_largest_may_stand_anywhere_in_a_long_run(quantize):
    for place in (0, 1, 31, 32, 63, 64, 127, 128, 998, 999):
        weight = tensor([[1.0] * 1000])
        weight[0, place] = -127.0
        found, scales = quantize(weight, bits=8, group=1000)
        assert_close(scales, in_float32([1.0]), f"the largest of the whole run: it stands at {place}")
        assert_identical(found, weight.to(torch.int8))


@pytest.mark.exact
def test_tiny_weights_have_as_many_codes_as_others(quantize):
    # Any least scale, such as 1e-5, would make 0 of all of them.
    found, scales = quantize(tensor([[127e-20, -50e-20]]), bits=8, group=2)
    assert_identical(found, codes([127, -50]), "no least scale: only a run of zeros is an exception")
    assert_close(1e20 * scales, in_float32([1.0]))


@pytest.mark.exact
def test_weights_as_large_as_float32_holds_do_not_overflow(quantize):
    # -1 / 3 · 127 = -42.3.
    found, scales = quantize(tensor([[3e38, -1e38]]), bits=8, group=2)
    assert_identical(found, codes([127, -42]), "127 · w is more than float32 holds: w over the scale")
    assert_close(scales, in_float32([3e38 / 127]))


def test_in_bfloat16_the_scale_is_still_exact(quantize):
    # 3 / 127 = 0.023622, and bfloat16 has 0.023682: with that 2 would be 84.5 scales, in place of 84.67.
    found, scales = quantize(tensor([[3.0, 2.0]], torch.bfloat16), bits=8, group=2)
    assert_close(scales, in_float32([3 / 127]), "scales: in float32 whatever the dtype of the weight")
    assert_identical(found, codes([127, 85]), "w / scale in float32")


def test_a_scale_may_be_smaller_than_float16_holds(quantize):
    # 2^-14 / 127 is 8.06 times the least number of float16. With 8 of it the codes would be 128 and -96.
    found, scales = quantize(tensor([[2**-14, -0.75 * 2**-14]], torch.float16), bits=8, group=2)
    assert_close(2**14 * scales, in_float32([1 / 127]), "scales: in float32 whatever the dtype of weight")
    assert_identical(found, codes([127, -95]), "w / scale in float32")


@pytest.mark.float64
def test_float64_stays_float64(quantize):
    # Just above the middle of 0 and 1. In float32 it would be in the middle, and become 0.
    found, _ = quantize(tensor([[127.0, 0.5 + 1e-9]], torch.float64), bits=8, group=2)
    assert_identical(found, codes([127, 1]), "a float64 weight in float32")


def test_with_fewer_bits_the_stairs_are_higher_and_no_weight_is_off_by_more_than_half_a_step(quantize, plot):
    weight = tensor(torch.linspace(-0.9, 1.0, 58))
    held, half_steps = {}, {}
    for bits in (8, 4):
        found, scales = quantize(weight[None], bits=bits, group=58)
        held[f"{bits} bits"] = found[0] * scales[0].float()
        half_steps[bits] = float(scales) / 2
    labels = {"xlabel": "weight", "ylabel": "code · scale"}
    plot(weight, {"_weight": torch.stack((weight, weight))} | held, "-", title="what is held of a weight", **labels)
    errors = {name: (of - weight).abs().max() for name, of in held.items()}
    assert_close(tensor(list(half_steps.values())), tensor([1 / 254, 1 / 14]))
    for bits, half_step in half_steps.items():
        excess = (errors[f"{bits} bits"] - half_step).clamp(min=0)
        assert_close(excess, torch.zeros_like(excess), "the nearest code")


@pytest.mark.refusal
@pytest.mark.parametrize("bits", [3, 16, 0])
def test_other_bits_than_8_and_4_are_refused(quantize, bits):
    with pytest.raises(ValueError, match=f"quantize: bits must be 8 or 4, got {bits}"):
        quantize(torch.ones(2, 4), bits=bits, group=4)


@pytest.mark.refusal
@pytest.mark.parametrize("group", [3, 8, 0, -1])
def test_a_group_that_does_not_divide_the_inputs_is_refused(quantize, group):
    with pytest.raises(ValueError, match=f"quantize: group must divide d_in=4, got {group}"):
        quantize(torch.ones(2, 4), bits=8, group=group)


@pytest.mark.refusal
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused(quantize, bad):
    weight = torch.ones(2, 4)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match=f"quantize: weight must be finite, got {bad}"):
        quantize(weight, bits=8, group=4)


@pytest.mark.refusal
def test_a_weight_of_one_axis_is_refused(quantize):
    with pytest.raises(ValueError, match=r"quantize: weight must be \[d_out d_in\], got \[4\]"):
        quantize(torch.ones(4), bits=8, group=4)


@pytest.mark.refusal
def test_a_weight_of_integers_is_refused(quantize):
    with pytest.raises(ValueError, match="quantize: weight must be float, got int64"):
        quantize(torch.ones(2, 4, dtype=torch.int64), bits=8, group=4)
