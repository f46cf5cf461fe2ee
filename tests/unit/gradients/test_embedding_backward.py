"""The gradient of embedding: each token adds its gradient to the row that it was looked up in."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical


def test_each_token_gives_its_gradient_to_the_row_of_its_id(embedding_backward, imshow):
    grad = tensor([[1.0, 2.0], [3.0, 4.0]])
    grad_weight = embedding_backward(grad, tensor([2, 0]), 4)
    labels = {"xlabel": "feature", "vmin": 0, "vmax": 4}
    imshow(grad, title="grad", ylabel="position", yticklabels=["0: id 2", "1: id 0"], **labels)
    imshow(grad_weight, title="the gradient of the table", ylabel="id", **labels)
    expected = tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    assert_close(grad_weight, expected, "which row a token was looked up in")


def test_a_repeated_id_adds_its_gradients_up(embedding_backward):
    # Row 1 was read at two places, row 0 at one, row 2 nowhere.
    grad_weight = embedding_backward(tensor([[1.0], [10.0], [100.0]]), tensor([1, 1, 0]), 3)
    assert_close(grad_weight, tensor([[100.0], [11.0], [0.0]]), "a sum: no row of grad overwrites another")


def test_the_tokens_of_all_leading_axes_count(embedding_backward):
    # Id 2 stands at three places of two texts: 1 + 10 + 1000.
    grad = tensor([[[1.0], [10.0]], [[100.0], [1000.0]]])
    grad_weight = embedding_backward(grad, tensor([[2, 2], [0, 2]]), 3)
    assert_close(grad_weight, tensor([[100.0], [0.0], [1011.0]]), "batch and sequence: all of it is added up")


def test_a_single_token_needs_no_leading_axis(embedding_backward):
    assert_close(embedding_backward(tensor([3.0, 4.0]), tensor(1), 2), tensor([[0.0, 0.0], [3.0, 4.0]]))


def test_the_table_is_as_long_as_the_vocabulary_whatever_the_largest_id_is(embedding_backward):
    grad_weight = embedding_backward(tensor([[5.0]]), tensor([1]), 5)
    assert_identical(grad_weight, tensor([[0.0], [5.0], [0.0], [0.0], [0.0]]), "a row for each id")


def test_no_token_no_gradient(embedding_backward):
    none = tensor(torch.zeros(0, dtype=torch.int64))
    assert_identical(embedding_backward(tensor(torch.zeros(0, 2)), none, 3), tensor([[0.0, 0.0]] * 3))


def test_nothing_is_left_of_an_earlier_call(embedding_backward):
    # To add what several calls return is for the caller, as autograd does with .grad.
    embedding_backward(tensor([[1.0]]), tensor([0]), 2)
    assert_identical(embedding_backward(tensor([[1.0]]), tensor([0]), 2), tensor([[1.0], [0.0]]), "begin with zeros")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_five_thousand_gradients_of_one_add_up_to_five_thousand(embedding_backward, dtype):
    # bfloat16 counts to 256 and float16 to 2,048. Both hold 5,000 = 625 · 8, within their spacing.
    grad_weight = embedding_backward(tensor([[1.0]] * 5000, dtype), tensor([1] * 5000), 2)
    assert_close(grad_weight, tensor([[0.0], [5000.0]], dtype), "gradients of a repeated id: add them up in float32")


@pytest.mark.parametrize("outside", [3, -1, -100])
def test_an_id_outside_the_vocabulary_is_an_index_error_and_never_a_row_from_the_end(embedding_backward, outside):
    with pytest.raises(IndexError):
        embedding_backward(tensor([[1.0], [2.0]]), tensor([2, outside]), 3)


@pytest.mark.refusal
@pytest.mark.parametrize("outside", [3, -1])
def test_an_id_outside_is_named_with_the_range(embedding_backward, outside):
    with pytest.raises(IndexError, match=f"embedding_backward: token_ids must lie in 0..2, got {outside}"):
        embedding_backward(torch.ones(2, 5), torch.tensor([2, outside]), 3)


@pytest.mark.refusal
def test_ids_of_another_shape_are_refused(embedding_backward):
    sentence = r"embedding_backward: token_ids must be \[\.\.\.\] with \.\.\.=\(2,\), got \[3\]"
    with pytest.raises(ValueError, match=sentence):
        embedding_backward(torch.ones(2, 5), torch.tensor([0, 1, 2]), 3)


@pytest.mark.refusal
def test_ids_that_are_not_integers_are_refused(embedding_backward):
    with pytest.raises(ValueError, match="embedding_backward: token_ids must be int64, got float64"):
        embedding_backward(torch.ones(2, 5), torch.ones(2, dtype=torch.float64), 3)


@pytest.mark.refusal
def test_a_negative_vocabulary_is_refused(embedding_backward):
    with pytest.raises(ValueError, match="embedding_backward: vocab must not be negative, got -1"):
        embedding_backward(torch.ones(2, 5), torch.tensor([0, 1]), -1)
