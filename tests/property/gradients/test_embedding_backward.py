"""What defines the gradient of embedding, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

SIZES = "batch seq vocab d_model"


@given(case=cases(SIZES))
def test_it_is_the_product_with_one_hot_rows(embedding_backward, case):
    grad, ids = case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab)
    one_hot = (ids[..., None] == tensor(range(case.vocab))).to(case.dtype)
    expected = one_hot.flatten(0, 1).T @ grad.flatten(0, 1)
    assert_close(embedding_backward(grad, ids, case.vocab), expected, "each token's row, added up")


@given(case=cases(SIZES, vocab=(1, 3), seq=(2, 7)))
def test_what_comes_in_goes_to_the_table_and_nothing_is_lost(embedding_backward, case):
    grad, ids = case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab)
    whole = embedding_backward(grad, ids, case.vocab).sum(dim=0)
    assert_close(whole, grad.sum(dim=(0, 1)), "a repeated id: no row of grad overwrites another")


@given(case=cases(SIZES, target.ALL))
def test_rows_that_are_not_looked_up_are_exactly_zero(embedding_backward, case):
    grad, ids = case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab)
    unused = [i for i in range(2 * case.vocab) if i not in ids.flatten().tolist()]
    found = embedding_backward(grad, ids, 2 * case.vocab)[unused]
    assert_identical(found, torch.zeros_like(found), "begin with zeros")


@given(case=cases(SIZES))
def test_the_order_of_the_tokens_does_not_matter(embedding_backward, case):
    grad, ids = case.upstream("batch seq d_model").flatten(0, 1), case.integers("batch seq", case.vocab).flatten()
    order = case.permutation(len(ids))
    permuted = embedding_backward(grad[order], ids[order], case.vocab)
    assert_close(permuted, embedding_backward(grad, ids, case.vocab), "a sum: the last one is like the others")


@given(case=cases(SIZES))
def test_renaming_the_ids_moves_the_rows(embedding_backward, case):
    grad, ids = case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab)
    order = case.permutation(case.vocab)
    renamed = embedding_backward(grad, order.argsort()[ids], case.vocab)
    assert_close(renamed, embedding_backward(grad, ids, case.vocab)[order], "no id is special: there is no padding")


@given(case=cases(SIZES), beyond=st.integers(0, 12), below=st.booleans())
def test_an_id_outside_the_vocabulary_is_an_index_error_wherever_it_stands(embedding_backward, case, beyond, below):
    # Often one that Python would count from the end.
    grad, ids = case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab)
    ids[case.seed % case.batch, case.seed % case.seq] = -1 - beyond if below else case.vocab + beyond
    with pytest.raises(IndexError):
        embedding_backward(grad, ids, case.vocab)
