"""The gradient of softmax: what a probability gains, the others of its row lose."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

THE_SUM = "the sum over the row: every x is in the denominator of every y"


def test_what_one_probability_gains_the_other_loses(softmax_backward):
    # Only the first result counts, so the sum of grad * y is 1/4.
    # 1/4 * (1 - 1/4) = 0.1875 and 3/4 * (0 - 1/4) = -0.1875.
    assert_close(softmax_backward(tensor([[1.0, 0.0]]), tensor([[0.25, 0.75]])), tensor([[0.1875, -0.1875]]), THE_SUM)


def test_each_one_moves_by_how_far_its_grad_is_from_the_mean_that_the_probabilities_weigh(softmax_backward):
    # The mean is 8 / 2 + 4 / 4 + 0 / 4 = 5. Then 1/2 * (8 - 5), 1/4 * (4 - 5) and 1/4 * (0 - 5).
    grad_x = softmax_backward(tensor([8.0, 4.0, 0.0]), tensor([0.5, 0.25, 0.25]))
    assert_close(grad_x, tensor([1.5, -0.25, -1.25]), THE_SUM)


def test_where_all_results_count_alike_no_score_matters(softmax_backward):
    # The probabilities sum to one whatever the scores are.
    grad_x = softmax_backward(tensor([3.0, 3.0, 3.0]), tensor([0.5, 0.25, 0.25]))
    assert_close(grad_x, tensor([0.0, 0.0, 0.0]), THE_SUM)


def test_each_row_has_a_sum_of_its_own(softmax_backward):
    # The sums are 1/4, 3, 5 and 0.
    grad = tensor([[[1.0, 0.0], [2.0, 4.0]], [[5.0, 7.0], [2.0, -2.0]]])
    y = tensor([[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]]])
    expected = tensor([[[0.1875, -0.1875], [-0.5, 0.5]], [[0.0, 0.0], [1.0, -1.0]]])
    assert_close(softmax_backward(grad, y), expected, "the axis of the sum: it is the last one")


def test_where_one_probability_is_certain_nothing_moves(softmax_backward):
    # 1 * (5 - 5) and 0 * (-7 - 5). Scores of 1 and 0 would give (0.73, 0.27).
    grad_x = softmax_backward(tensor([5.0, -7.0]), tensor([1.0, 0.0]))
    assert_close(grad_x, tensor([0.0, 0.0]), "y is what softmax returned: no softmax of it")


def test_a_probability_of_zero_gets_exactly_zero(softmax_backward):
    # As masked scores have it. The sum is 1/2 + 0 + 3/2 = 2, whatever the second grad is.
    grad_x = softmax_backward(tensor([1.0, 1e6, 3.0]), tensor([0.5, 0.0, 0.5]))
    assert_identical(grad_x[1], tensor(0.0), "y = 0: it is a factor, and no guard is needed")
    assert_close(grad_x, tensor([-0.5, 0.0, 0.5]))


def test_a_single_probability_has_nobody_to_gain_from(softmax_backward):
    assert_close(softmax_backward(tensor([[-3.0], [5.0]]), tensor([[1.0], [1.0]])), tensor([[0.0], [0.0]]))


def test_a_difference_beyond_float16_is_not_taken_in_it(softmax_backward):
    # The sum is 60000 * (1 - 63) / 64 = -58125. 60000 + 58125 is beyond 65504, but a 64th of it is not.
    grad, y = tensor([60000.0, -60000.0], torch.float16), tensor([1 / 64, 63 / 64], torch.float16)
    expected = tensor([1845.703125, -1845.703125], torch.float16)
    assert_close(softmax_backward(grad, y), expected, "the dtype of the sum and of the difference: float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_eight_thousand_small_terms_add_up_in_every_dtype(softmax_backward, dtype):
    # Each term is 8192 / 8192 = 1. bfloat16 counts to 256 and float16 to 2,048, and 8192 less that would be left.
    grad, y = tensor([8192.0] * 8192, dtype), tensor([1 / 8192] * 8192, dtype)
    assert_close(softmax_backward(grad, y), tensor([0.0] * 8192, dtype), "the sum: at least in float32")


def test_one_result_at_a_time_gives_the_matrix_of_all_slopes(softmax_backward, imshow):
    # Row j of the identity asks for dy_j/dx: y_j * (1 - y_j) on the diagonal, and -y_j * y_i beside it.
    y = tensor([0.5, 0.25, 0.125, 0.125])
    slopes = softmax_backward(tensor(torch.eye(4).tolist()), tensor([y.tolist()] * 4))
    imshow(slopes, signed=True, title="dy_j / dx_i for y = 1/2, 1/4, 1/8, 1/8", xlabel="i", ylabel="j")
    assert_close(slopes, y.diag() - y[:, None] * y, THE_SUM)


@pytest.mark.refusal
def test_probabilities_of_another_shape_are_refused(softmax_backward):
    with pytest.raises(ValueError, match=r"softmax_backward: y must be \[... n\] with ...=\(2,\) n=6, got \[2, 5\]"):
        softmax_backward(torch.ones(2, 6), torch.ones(2, 5))


@pytest.mark.refusal
def test_a_row_without_a_probability_is_refused(softmax_backward):
    sentence = r"softmax_backward: needs at least one probability in a row, got shape \[2, 0\]"
    with pytest.raises(ValueError, match=sentence):
        softmax_backward(torch.ones(2, 0), torch.ones(2, 0))


@pytest.mark.refusal
def test_integers_are_refused(softmax_backward):
    with pytest.raises(ValueError, match="softmax_backward: grad must be float, got int64"):
        softmax_backward(torch.ones(2, 6, dtype=torch.int64), torch.ones(2, 6))
