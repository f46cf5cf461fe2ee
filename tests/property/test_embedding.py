"""What defines embedding, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.assertions import assert_close, assert_identical
from tests.strategies import ALL, cases, tensor


@given(case=cases("batch seq vocab d_model", ALL))
def test_it_equals_one_hot_times_the_weight(embedding, case):
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model")
    one_hot = torch.nn.functional.one_hot(ids, case.vocab).to(case.dtype)
    assert_close(embedding(ids, weight), one_hot @ weight)


@given(case=cases("vocab d_model", ALL))
def test_all_ids_in_order_give_the_whole_table(embedding, case):
    weight = case.normal("vocab d_model")
    assert_identical(embedding(tensor(range(case.vocab)), weight), weight)


@pytest.mark.tensors
@given(case=cases("batch seq vocab d_model"))
def test_every_occurrence_of_an_id_adds_its_gradient(embedding, case):
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model").requires_grad_()
    embedding(ids, weight).sum().backward()
    occurrences = torch.bincount(ids.flatten(), minlength=case.vocab).to(case.dtype)
    assert_close(weight.grad, occurrences[:, None].expand_as(weight))


@given(case=cases("batch seq vocab d_model"), beyond=st.integers(1, 100), below=st.booleans())
def test_an_id_outside_the_vocabulary_is_an_index_error_wherever_it_stands(embedding, case, beyond, below):
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model")
    ids[-1, -1] = -beyond if below else case.vocab - 1 + beyond
    with pytest.raises(IndexError):
        embedding(ids, weight)
