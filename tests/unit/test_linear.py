"""Linear: each output is a weighted sum of the inputs."""

import pytest
import torch

from tests.assertions import assert_close
from tests.strategies import tensor


def test_each_row_of_the_weight_makes_one_output(linear):
    # 1·1 + 2·10 = 21, 3·1 + 4·10 = 43, 5·1 + 6·10 = 65.
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert_close(linear(tensor([1.0, 10.0]), weight), tensor([21.0, 43.0, 65.0]))


def test_a_square_weight_is_out_by_in_as_well(linear):
    # The other way round it would be 31, 42.
    weight = tensor([[1.0, 2.0], [3.0, 4.0]])
    assert_close(linear(tensor([1.0, 10.0]), weight), tensor([21.0, 43.0]), "the weight is [d_out d_in]")


def test_zero_in_zero_out_for_there_is_no_bias(linear):
    assert_close(linear(tensor([[0.0, 0.0]]), tensor([[1.0, 2.0]])), tensor([[0.0]]))


@pytest.mark.refusal
def test_a_weight_for_another_number_of_inputs_is_refused(linear):
    with pytest.raises(ValueError, match=r"linear: weight must be \[d_out d_in\] with d_in=3, got \[3, 2\]"):
        linear(torch.ones(4, 3), torch.ones(3, 2))


@pytest.mark.refusal
def test_a_missing_axis_is_refused(linear):
    with pytest.raises(ValueError, match=r"linear: weight must be \[d_out d_in\] with d_in=3, got \[3\]"):
        linear(torch.ones(4, 3), torch.ones(3))
