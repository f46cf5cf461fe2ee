"""Embedding: look up one row of a table for each token."""

import pytest
import torch

from tests.assertions import assert_identical
from tests.strategies import tensor

TABLE = [[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]]


def test_each_id_gets_its_row(embedding):
    assert_identical(embedding(tensor([2, 0]), tensor(TABLE)), tensor([[20.0, 21.0], [0.0, 1.0]]))


def test_an_id_may_occur_twice(embedding):
    assert_identical(embedding(tensor([1, 1]), tensor(TABLE)), tensor([[10.0, 11.0], [10.0, 11.0]]))


def test_the_shape_of_the_ids_is_kept(embedding):
    expected = tensor([[[0.0, 1.0], [10.0, 11.0]], [[20.0, 21.0], [0.0, 1.0]]])
    assert_identical(embedding(tensor([[0, 1], [2, 0]]), tensor(TABLE)), expected)


@pytest.mark.parametrize("outside", [-1, 3, 10**9])
def test_an_id_outside_the_vocabulary_is_an_index_error_and_never_a_wrapped_row(embedding, outside):
    with pytest.raises(IndexError):
        embedding(tensor([0, outside]), tensor(TABLE))


@pytest.mark.refusal
def test_the_error_says_which_id_and_which_ids_there_are(embedding):
    with pytest.raises(IndexError, match=r"embedding: token_ids must lie in 0..2, got -1"):
        embedding(torch.tensor([0, -1]), torch.tensor(TABLE))


@pytest.mark.refusal
def test_ids_that_are_not_integers_are_refused(embedding):
    with pytest.raises(ValueError, match="embedding: token_ids must be int64, got float"):
        embedding(torch.tensor([0.0]), torch.tensor(TABLE))
