"""Quantized linear: a linear layer whose weight is made of codes and scales."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def codes(*rows):
    return tensor(rows, torch.int8)


def scales(*rows):
    return tensor(rows, torch.float32)


def test_the_weight_is_code_times_scale(quantized_linear):
    # The weight is 0.5, 1, 1.5: 0.5 · 1 + 1 · 10 + 1.5 · 100.
    y = quantized_linear(tensor([1.0, 10.0, 100.0]), codes([1, 2, 3]), scales([0.5]))
    assert_close(y, tensor([160.5]), "weight: codes · scales")


def test_each_run_of_inputs_that_follow_each_other_has_its_own_scale(quantized_linear):
    # Two scales for four inputs, so runs of two: 1 · (1 + 2) + 10 · (3 + 4).
    y = quantized_linear(tensor([1.0, 1.0, 1.0, 1.0]), codes([1, 2, 3, 4]), scales([1.0, 10.0]))
    assert_close(y, tensor([73.0]), "input i has the scale i // group")


def test_each_output_has_its_own_codes_and_scales(quantized_linear):
    # 2 · (1 + 1) + 3 · 1 and 5 · 1 + 7 · (1 - 1).
    y = quantized_linear(tensor([1.0] * 4), codes([1, 1, 1, 0], [1, 0, 1, -1]), scales([2.0, 3.0], [5.0, 7.0]))
    assert_close(y, tensor([7.0, 5.0]), "scales are [d_out n_groups]: a row for each output")


def test_square_codes_are_out_by_in_too(quantized_linear):
    # The first output reads the second input. Transposed, it would be 0, 3.
    y = quantized_linear(tensor([3.0, 5.0]), codes([0, 1], [0, 0]), scales([1.0], [1.0]))
    assert_close(y, tensor([5.0, 0.0]), "codes: they are [d_out d_in]")


def test_a_negative_code_is_a_negative_weight(quantized_linear):
    # Read as an unsigned byte, -1 would be 255. One whose neighbour is negative stays as it is.
    y = quantized_linear(tensor(torch.eye(4)), codes([-1, 2, -127, 3]), scales([1.0]))
    assert_close(y, tensor([[-1.0], [2.0], [-127.0], [3.0]]), "codes: signed, and each by itself")


def test_codes_of_8_bits_are_read_whole(quantized_linear):
    # The low four bits alone would be 7, 8 - 16 and 0.
    y = quantized_linear(tensor(torch.eye(3)), codes([7, 120, 64]), scales([1.0]))
    assert_close(y, tensor([[7.0], [120.0], [64.0]]))


def test_the_sum_leaves_the_range_of_the_codes(quantized_linear):
    # 127 + 127 = 254, which int8 does not hold.
    y = quantized_linear(tensor([1.0, 1.0]), codes([127, 127]), scales([1.0]))
    assert_close(y, tensor([254.0]), "codes are made floats before anything is computed")


def test_a_scale_of_each_input_and_one_scale_for_all(quantized_linear):
    x, whole = tensor([1.0, 1.0, 1.0]), codes([1, 2, 3])
    assert_close(quantized_linear(x, whole, scales([1.0, 10.0, 100.0])), tensor([321.0]), "n_groups = d_in")
    assert_close(quantized_linear(x, whole, scales([10.0])), tensor([60.0]), "n_groups = 1")


def test_a_run_with_scale_0_adds_nothing(quantized_linear):
    y = quantized_linear(tensor([1.0, 1.0, 1.0, 1.0]), codes([100, 100, 3, 4]), scales([0.0, 1.0]))
    assert_close(y, tensor([7.0]), "a scale of 0 is no exception")


def test_a_tiny_scale_is_not_zero(quantized_linear):
    y = quantized_linear(tensor([1e6, 0.0]), codes([100, 1]), scales([1e-8]))
    assert_close(y, tensor([1.0]), "no least scale")


def test_each_token_is_projected_by_itself(quantized_linear):
    # The weight is (0.5, 1) and (-1, 0).
    x = tensor([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [-2.0, 3.0]]])
    y = quantized_linear(x, codes([1, 2], [-1, 0]), scales([0.5], [1.0]))
    assert_close(y, tensor([[[1.0, -2.0], [1.0, 0.0]], [[2.0, -2.0], [2.0, 2.0]]]))


def test_no_token_gives_no_result(quantized_linear):
    y = quantized_linear(tensor([[1.0, 2.0]])[:0], codes([1, 2], [3, 4], [5, 6]), scales([1.0], [1.0], [1.0]))
    assert_close(y, tensor([[1.0, 2.0, 3.0]])[:0], "no token: [0 d_out]")


@pytest.mark.parametrize("group", [64, 48])
@pytest.mark.parametrize("tokens", [1, 2])
def test_long_runs_have_their_own_scales_for_one_token_and_for_more(quantized_linear, tokens, group):
    # One token at a time is computed while a text is written, more while it is read. A run of 48 ends within a block.
    y = quantized_linear(tensor([[1.0] * (2 * group)] * tokens), codes([1] * (2 * group)), scales([1.0, 3.0]))
    assert_close(y, tensor([[4.0 * group]] * tokens), "which scale a run has: in each block, and for one token")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_stay_float32_beside_x_in_half_precision(quantized_linear, dtype):
    # 100 · 1.0001 - 100 · 1 = 0.01. Rounded to half precision both scales are 1, and nothing is left.
    y = quantized_linear(tensor([1.0, 1.0], dtype), codes([100, -100]), scales([1.0001, 1.0]))
    assert_close(128 * y, tensor([1.28], dtype), "scales, and the weight that they make: in float32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_weight_is_not_rounded_to_half_precision(quantized_linear, dtype):
    # 101 · 1.0087890625 = 101.8876953125, so -0.1123 is left. bfloat16 makes 102 of it, float16 101.875.
    y = quantized_linear(tensor([1.0, 1.0], dtype), codes([101, -102]), scales([1.0087890625, 1.0]))
    assert_close(y, tensor([-0.1123046875], dtype), "the weight: in float32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_eight_thousand_inputs_of_one_add_up_to_eight_thousand(quantized_linear, dtype):
    # In bfloat16 a sum of ones would end at 256, in float16 at 2048.
    y = quantized_linear(tensor([[1.0] * 8192], dtype), codes([1] * 8192), scales([1.0]))
    assert_close(y, tensor([[8192.0]], dtype), "the sum: in float32")


def test_sums_may_leave_the_range_of_float16_and_come_back(quantized_linear):
    # 127 · 1000 = 127,000, and float16 ends at 65,504. 127,000 - 126,000 = 1000, and 128,000 / 128 = 1000.
    x = tensor([[1000.0, 1000.0]], torch.float16)
    y = quantized_linear(x, codes([127, -126]), scales([1.0]))
    assert_close(y, tensor([[1000.0]], torch.float16), "the sum: in float32")
    y = quantized_linear(x, codes([127, 1]), scales([1 / 128]))
    assert_close(y, tensor([[1000.0]], torch.float16), "code · x: in float32, before it meets the scale")


@pytest.mark.float64
def test_float64_stays_float64(quantized_linear):
    # 1e8 · 1 + 0.5 · 1 - 1e8 · 1: float32 has no 100,000,000.5.
    x = tensor([1e8, 0.5, -1e8], torch.float64)
    y = quantized_linear(x, codes([1, 1, 1]), scales([1.0]))
    assert_close(y, tensor([0.5], torch.float64), "a sum of float64 in float32")


def test_each_unit_vector_reads_out_a_column_of_the_weight(quantized_linear, imshow):
    held = torch.linspace(-3, 3, 32).mul(2).sin().mul(127).round().reshape(4, 8).to(torch.int8)
    sizes = torch.linspace(0.2, 1.6, 8).reshape(4, 2) / 127
    weight = quantized_linear(tensor(torch.eye(8)), tensor(held), tensor(sizes)).T
    imshow(held, signed=True, title="codes", xlabel="d_in", ylabel="d_out")
    imshow(sizes, title="scales: one for each run of 4", xlabel="n_groups", ylabel="d_out")
    imshow(weight, signed=True, title="the weight that is multiplied by", xlabel="d_in", ylabel="d_out")
    assert_close(weight, tensor(held.float() * sizes.repeat_interleave(4, dim=1)))


@pytest.mark.refusal
@pytest.mark.parametrize("n_groups", [4, 0])
def test_scales_whose_number_does_not_divide_the_inputs_are_refused(quantized_linear, n_groups):
    with pytest.raises(ValueError, match=f"quantized_linear: n_groups must divide d_in=6, got {n_groups}"):
        quantized_linear(torch.ones(2, 6), torch.ones(3, 6, dtype=torch.int8), torch.ones(3, n_groups))


@pytest.mark.refusal
def test_codes_for_another_number_of_inputs_are_refused(quantized_linear):
    sentence = r"quantized_linear: codes must be \[d_out d_in\] with d_in=4, got \[3, 6\]"
    with pytest.raises(ValueError, match=sentence):
        quantized_linear(torch.ones(2, 4), torch.ones(3, 6, dtype=torch.int8), torch.ones(3, 2))


@pytest.mark.refusal
def test_scales_for_another_number_of_outputs_are_refused(quantized_linear):
    sentence = r"quantized_linear: scales must be \[d_out n_groups\] with d_out=3, got \[5, 2\]"
    with pytest.raises(ValueError, match=sentence):
        quantized_linear(torch.ones(2, 6), torch.ones(3, 6, dtype=torch.int8), torch.ones(5, 2))


@pytest.mark.refusal
def test_codes_that_are_floats_are_refused(quantized_linear):
    with pytest.raises(ValueError, match="quantized_linear: codes must be int8, got float"):
        quantized_linear(torch.ones(2, 6), torch.ones(3, 6), torch.ones(3, 2))
