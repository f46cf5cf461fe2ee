"""The gradient of linear: two more products of matrices, one for x and one for the weight."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

BACK = "grad_x: down the columns of the weight, which is [d_out d_in]"


def test_every_output_sends_back_its_grad_times_its_row_of_the_weight(linear_backward):
    # The grads of the two outputs are 1 and 10: 1 + 10 * 3 and 2 + 10 * 4. By rows it would be 21 and 43.
    grad_x, grad_weight = linear_backward(tensor([1.0, 10.0]), tensor([7.0, 8.0]), tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert_close(grad_x, tensor([31.0, 42.0]), BACK)
    # Each weight is multiplied by one feature of x and counts in one output: 1 * 7, 1 * 8, 10 * 7, 10 * 8.
    assert_close(grad_weight, tensor([[7.0, 8.0], [70.0, 80.0]]), "grad_weight: [d_out d_in], like the weight")


def test_there_may_be_more_outputs_than_inputs(linear_backward):
    # grad_x = 1 * (1, 2) + 0 * (3, 4) - 1 * (5, 6).
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    grad_x, grad_weight = linear_backward(tensor([[1.0, 0.0, -1.0]]), tensor([[2.0, 3.0]]), weight)
    assert_close(grad_x, tensor([[-4.0, -4.0]]), BACK)
    assert_close(grad_weight, tensor([[2.0, 3.0], [0.0, 0.0], [-2.0, -3.0]]))


def test_every_token_adds_to_the_gradient_of_the_weight(linear_backward):
    # The grads of the two tokens are 1 and 10: 1 + 10 * 3 and 2 + 10 * 4.
    grad, x = tensor([[1.0], [10.0]]), tensor([[1.0, 2.0], [3.0, 4.0]])
    grad_x, grad_weight = linear_backward(grad, x, tensor([[7.0, 8.0]]))
    assert_close(grad_weight, tensor([[31.0, 42.0]]), "grad_weight: the sum over tokens, and no mean")
    # Each token gets back what is its own.
    assert_close(grad_x, tensor([[7.0, 8.0], [70.0, 80.0]]))


def test_the_sum_is_over_batch_and_sequence(linear_backward):
    # 1 * 1 + 10 * 2 + 100 * 3 + 1000 * 4
    grad, x = tensor([[[1.0], [10.0]], [[100.0], [1000.0]]]), tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    grad_x, grad_weight = linear_backward(grad, x, tensor([[2.0]]))
    assert_close(grad_weight, tensor([[4321.0]]), "grad_weight: the sum over all leading axes")
    assert_close(grad_x, tensor([[[2.0], [20.0]], [[200.0], [2000.0]]]))


def test_without_a_token_the_weight_has_a_gradient_of_zeros(linear_backward):
    grad, x = tensor(torch.zeros(2, 0, 1)), tensor(torch.zeros(2, 0, 3))
    grad_x, grad_weight = linear_backward(grad, x, tensor([[1.0, 2.0, 3.0]]))
    assert_identical(grad_x, x)
    assert_identical(grad_weight, tensor([[0.0, 0.0, 0.0]]))


def test_without_an_output_nothing_comes_back(linear_backward):
    x = tensor([[1.0, 2.0, 3.0]])
    grad_x, grad_weight = linear_backward(tensor(torch.zeros(1, 0)), x, tensor(torch.zeros(0, 3)))
    assert_identical(grad_x, tensor([[0.0, 0.0, 0.0]]), "an empty sum is zero; reshape(-1, 0) is ambiguous")
    assert_identical(grad_weight, tensor(torch.zeros(0, 3)))


def test_nothing_is_left_of_an_earlier_call(linear_backward):
    # To add what several calls return is for the caller, as autograd does with .grad.
    grad, x, weight = tensor([[2.0]]), tensor([[3.0]]), tensor([[5.0]])
    linear_backward(grad, x, weight)
    assert_identical(linear_backward(grad, x, weight)[1], tensor([[6.0]]), "begin with zeros")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_five_thousand_tokens_add_up_in_every_dtype(linear_backward, dtype):
    # bfloat16 counts to 256 and float16 to 2,048. Both hold 5,000 = 625 · 8, within their spacing.
    ones = tensor([[1.0]] * 5000, dtype)
    _, grad_weight = linear_backward(ones, ones, tensor([[1.0]], dtype))
    assert_close(grad_weight, tensor([[5000.0]], dtype), "sums over tokens: at least in float32")


def test_one_token_alone_gives_its_grad_times_its_x(linear_backward, imshow):
    grad, x = tensor([1.0, -2.0, 0.5]), tensor([2.0, 0.0, -1.0, 1.0])
    _, grad_weight = linear_backward(grad, x, tensor([[1.0] * 4] * 3))
    imshow(grad_weight, signed=True, title="grad = 1, -2, 1/2 and x = 2, 0, -1, 1", xlabel="d_in", ylabel="d_out")
    assert_close(grad_weight, grad[:, None] * x)


@pytest.mark.refusal
def test_a_weight_for_another_number_of_outputs_is_refused_with_both_sizes(linear_backward):
    sentence = r"linear_backward: weight must be \[d_out d_in\] with d_out=4 d_in=3, got \[5, 3\]"
    with pytest.raises(ValueError, match=sentence):
        linear_backward(torch.ones(2, 4), torch.ones(2, 3), torch.ones(5, 3))


@pytest.mark.refusal
def test_a_gradient_for_other_tokens_is_refused(linear_backward):
    with pytest.raises(ValueError, match=r"linear_backward: x must be \[... d_in\] with ...=\(3,\), got \[2, 3\]"):
        linear_backward(torch.ones(3, 4), torch.ones(2, 3), torch.ones(4, 3))


@pytest.mark.refusal
def test_integers_are_refused(linear_backward):
    with pytest.raises(ValueError, match="linear_backward: x must be float, got int64"):
        linear_backward(torch.ones(2, 4), torch.ones(2, 3, dtype=torch.int64), torch.ones(4, 3))
