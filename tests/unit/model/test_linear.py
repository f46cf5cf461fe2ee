"""Linear: each output is a weighted sum of the inputs, with one row of the weight for each output."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_an_output_is_the_weighted_sum_of_the_inputs(linear):
    # 1 · 1 + 10 · 2 + 100 · 3
    assert_close(linear(tensor([1.0, 2.0, 3.0]), tensor([[1.0, 10.0, 100.0]])), tensor([321.0]))


def test_each_output_has_a_row_of_the_weight(linear):
    weight = tensor([[0.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    assert_close(linear(tensor([5.0, 6.0, 8.0]), weight), tensor([8.0, -1.0]))


def test_a_square_weight_is_out_by_in_too(linear):
    # The first output reads the second input. Transposed, it would be 0, 3.
    weight = tensor([[0.0, 1.0], [0.0, 0.0]])
    assert_close(linear(tensor([3.0, 5.0]), weight), tensor([5.0, 0.0]), "a transposed weight: it is [d_out d_in]")


def test_each_token_is_projected_by_itself(linear):
    x = tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, -1.0]]])
    expected = tensor([[[1.0, 3.0], [10.0, 30.0]], [[11.0, 33.0], [-8.0, -24.0]]])
    assert_close(linear(x, tensor([[1.0, 10.0], [3.0, 30.0]])), expected)


def test_zero_in_zero_out_since_there_is_no_bias(linear):
    assert_close(linear(tensor([[0.0, 0.0]]), tensor([[1.0, 2.0], [3.0, 4.0]])), tensor([[0.0, 0.0]]))


def test_each_unit_vector_goes_to_its_column_of_the_weight_and_the_others_follow(linear, plot, imshow):
    weight = tensor([[1.0, -0.5], [0.25, 1.5]])
    square = tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    moved = linear(square, weight)
    imshow(weight, signed=True, title="weight", xlabel="d_in", ylabel="d_out")
    arms = {"to (1, 0)": moved[:2].T, "to (0, 1)": moved[3:].flip(0).T}
    names = {"_square": square.T, "_moved": moved.T} | {f"{n}: column {i}": a for i, (n, a) in enumerate(arms.items())}
    labels = {"aspect": "equal", "xlim": (-1, 2.5), "ylim": (-0.2, 2.2)}
    plot(None, names, "o-", title="the unit square, and where it goes", **labels)
    assert_close(moved[[1, 3]], weight.T)
    assert_close(moved[2], weight.sum(dim=1))


@pytest.mark.tensors
def test_every_token_adds_to_the_gradient_of_the_weight(linear):
    # The output's gradient is 1 for the first token and 10 for the second: 1 + 10 · 3 and 2 + 10 · 4.
    weight = tensor([[7.0, 8.0]]).requires_grad_()
    (linear(tensor([[1.0, 2.0], [3.0, 4.0]]), weight) * tensor([[1.0], [10.0]])).sum().backward()
    assert_close(weight.grad, tensor([[31.0, 42.0]]))


@pytest.mark.tensors
def test_every_output_adds_to_the_gradient_of_the_input(linear):
    # The output's gradient is 1 and 10: 1 + 10 · 3 and 2 + 10 · 4.
    x = tensor([7.0, 8.0]).requires_grad_()
    (linear(x, tensor([[1.0, 2.0], [3.0, 4.0]])) * tensor([1.0, 10.0])).sum().backward()
    assert_close(x.grad, tensor([31.0, 42.0]))


@pytest.mark.refusal
def test_a_weight_for_another_number_of_inputs_is_refused_with_both_sizes(linear):
    with pytest.raises(ValueError, match=r"linear: weight must be \[d_out d_in\] with d_in=3, got \[3, 5\]"):
        linear(torch.ones(2, 3), torch.ones(3, 5))


@pytest.mark.refusal
def test_a_weight_of_one_axis_is_refused(linear):
    with pytest.raises(ValueError, match=r"linear: weight must be \[d_out d_in\] with d_in=3, got \[3\]"):
        linear(torch.ones(2, 3), torch.ones(3))


@pytest.mark.refusal
def test_integers_are_refused(linear):
    with pytest.raises(ValueError, match="linear: x must be float, got int64"):
        linear(torch.ones(2, 3, dtype=torch.int64), torch.ones(5, 3))


@pytest.mark.tensors
@pytest.mark.refusal
def test_a_weight_of_another_dtype_is_refused(linear):
    with pytest.raises(ValueError, match="linear: weight must be bfloat16 like x, got float32"):
        linear(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(5, 3))


@pytest.mark.tensors
@pytest.mark.refusal
def test_autocast_chooses_the_dtype_of_a_product_itself(linear):
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(5, 3)).dtype == torch.bfloat16
