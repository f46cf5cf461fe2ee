"""What defines the embedding, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def one_hot(case, ids):
    return (ids[..., None] == tensor(range(case.vocab))).to(case.dtype)


@given(case=cases("batch seq vocab d_model"))
def test_it_equals_one_hot_times_weight(embedding, case):
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model")
    assert_close(embedding(ids, weight), one_hot(case, ids) @ weight)


@pytest.mark.tensors
@given(case=cases("batch seq vocab d_model", seq=(2, 7), vocab=(1, 3)))
def test_every_occurrence_of_an_id_adds_its_gradient(embedding, case):
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model").requires_grad_()
    gradient = case.normal("batch seq d_model")
    embedding(ids, weight).backward(gradient)
    expected = one_hot(case, ids).flatten(0, 1).T @ gradient.flatten(0, 1)
    assert_close(weight.grad, expected, "gradients that overwrite each other, or a row that is left out")


@given(case=cases("batch seq vocab d_model"), beyond=st.integers(0, 12), below=st.booleans())
def test_an_id_outside_the_vocabulary_is_an_index_error_wherever_it_stands(embedding, case, beyond, below):
    # Often one that Python would count from the end.
    ids, weight = case.integers("batch seq", case.vocab), case.normal("vocab d_model")
    ids[case.seed % case.batch, case.seed % case.seq] = -1 - beyond if below else case.vocab + beyond
    with pytest.raises(IndexError):
        embedding(ids, weight)
