"""Embedding: each token is replaced by its row of a table."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_each_id_is_replaced_by_its_row(embedding, imshow):
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    rows = embedding(tensor([2, 0]), weight)
    labels = {"xlabel": "feature", "vmin": 1, "vmax": 6}
    imshow(weight, title="the table", ylabel="id", **labels)
    imshow(rows, title="the rows of the ids 2 and 0", ylabel="position", yticklabels=["0: id 2", "1: id 0"], **labels)
    assert_close(rows, tensor([[5.0, 6.0], [1.0, 2.0]]))


def test_the_table_is_vocab_by_d_model_where_it_is_square_too(embedding):
    assert_close(embedding(tensor([1]), tensor([[1.0, 2.0], [3.0, 4.0]])), tensor([[3.0, 4.0]]), "a transposed table")


def test_the_leading_axes_are_those_of_the_ids(embedding):
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = tensor([[[1.0, 2.0], [5.0, 6.0], [5.0, 6.0]], [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]])
    assert_close(embedding(tensor([[0, 2, 2], [1, 0, 1]]), weight), expected)


def test_a_single_id_gives_a_single_row(embedding):
    assert_close(embedding(tensor(1), tensor([[1.0, 2.0], [3.0, 4.0]])), tensor([3.0, 4.0]))


@pytest.mark.tensors
def test_a_repeated_id_adds_its_gradients_up(embedding):
    # Row 1 is read at two places, row 0 at one, row 2 nowhere.
    weight = tensor([[7.0], [8.0], [9.0]]).requires_grad_()
    (embedding(tensor([1, 1, 0]), weight) * tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert_close(weight.grad, tensor([[100.0], [11.0], [0.0]]), "gradients that overwrite each other")


def test_an_id_past_the_last_row_is_an_index_error(embedding):
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with pytest.raises(IndexError):
        embedding(tensor([0, 3]), weight)


def test_a_negative_id_is_an_index_error_and_not_the_last_row(embedding):
    weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with pytest.raises(IndexError):
        embedding(tensor([0, -1]), weight)


@pytest.mark.parametrize("outside", [3, -1, -100])
def test_an_id_outside_the_table_is_an_index_error_and_never_a_row_from_the_end(embedding, outside):
    with pytest.raises(IndexError):
        embedding(tensor([2, outside]), tensor([[1.0], [2.0], [3.0]]))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_five_thousand_gradients_of_one_add_up_to_five_thousand(embedding, dtype):
    # bfloat16 counts to 256 and float16 to 2,048. Both hold 5,000 = 625 · 8, within their spacing.
    weight = tensor([[1.0], [2.0]], dtype).requires_grad_()
    out = embedding(tensor([1]).expand(5_000), weight)
    out.backward(torch.ones_like(out))
    assert_close(weight.grad, tensor([[0.0], [5000.0]], dtype), "gradients of a repeated id: add them up in float32")


@pytest.mark.refusal
@pytest.mark.parametrize("outside", [3, -1])
def test_an_id_outside_is_named_with_the_range(embedding, outside):
    with pytest.raises(IndexError, match=f"embedding: token_ids must lie in 0..2, got {outside}"):
        embedding(torch.tensor([2, outside]), torch.ones(3, 5))


@pytest.mark.refusal
def test_ids_that_are_not_integers_are_refused(embedding):
    with pytest.raises(ValueError, match="embedding: token_ids must be int64, got float64"):
        embedding(torch.ones(2, dtype=torch.float64), torch.ones(3, 5))


@pytest.mark.refusal
def test_a_table_of_one_axis_is_refused(embedding):
    with pytest.raises(ValueError, match=r"embedding: weight must be \[vocab d_model\], got \[6\]"):
        embedding(torch.tensor([1, 2]), torch.ones(6))
