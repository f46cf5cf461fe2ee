"""Attention: each query takes the mean of the values, weighted by how well their keys match it."""

import math
import re

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

LOG3 = math.log(3)


def _heads(*heads):
    """One batch entry; each head a list of positions, each position a list of features."""
    return tensor([list(heads)])


def test_values_are_weighted_by_the_softmax_of_the_scores(attention):
    # One feature, so the scale is 1. Scores 0 and ln 3, weights 1/4 and 3/4: 1/4 · 8 + 3/4 · 16 = 14.
    y = attention(_heads([[1.0]]), _heads([[0.0], [LOG3]]), _heads([[8.0], [16.0]]), causal=False)
    assert_close(y, _heads([[14.0]]))


def test_the_opposite_query_reads_the_opposite_key(attention):
    # Scores 0 and -ln 3, weights 3/4 and 1/4: 3/4 · 8 + 1/4 · 16 = 10.
    y = attention(_heads([[-1.0]]), _heads([[0.0], [LOG3]]), _heads([[8.0], [16.0]]), causal=False)
    assert_close(y, _heads([[10.0]]), "scores: the product of query and key")


def test_scores_are_divided_by_the_square_root_of_head_dim(attention):
    # Four features: products 0 and 2 · ln 3, over sqrt(4) = 0 and ln 3.
    k = _heads([[0.0] * 4, [2 * LOG3, 0.0, 0.0, 0.0]])
    v = _heads([[8.0] * 4, [16.0] * 4])
    y = attention(_heads([[1.0, 0.0, 0.0, 0.0]]), k, v, causal=False)
    assert_close(y, _heads([[14.0] * 4]), "the scale is head_dim to the power -1/2")


def test_without_causal_every_query_sees_everything(attention):
    same = _heads([[0.0], [0.0]])
    assert_close(attention(same, same, _heads([[6.0], [12.0]]), causal=False), _heads([[9.0], [9.0]]))


def test_a_query_sees_itself_and_what_came_before_and_nothing_after(attention):
    same = _heads([[0.0], [0.0], [0.0]])
    y = attention(same, same, _heads([[6.0], [12.0], [30.0]]))
    assert_close(y, _heads([[6.0], [9.0], [16.0]]), "the causal mask: the diagonal is visible, above it is not")


def test_fewer_queries_than_keys_are_the_last_ones(attention):
    q, k = _heads([[0.0], [0.0]]), _heads([[0.0], [0.0], [0.0]])
    y = attention(q, k, _heads([[6.0], [12.0], [30.0]]))
    assert_close(y, _heads([[9.0], [16.0]]), "the mask is aligned at the last key, not at the first")


def test_query_heads_share_key_heads_in_order(attention, imshow):
    # Four query heads, two key heads: heads 0 and 1 read the first, 2 and 3 the second.
    q, k, first, second = _heads(*[[[0.0, 0.0]]] * 4), _heads(*[[[0.0, 0.0]]] * 2), [[5.0, 0.0]], [[0.0, 7.0]]
    y = attention(q, k, _heads(first, second))
    labels = {"xlabel": "value head", "ylabel": "query head", "title": "which of 2 value heads each query head reads"}
    imshow(y[0, :, 0], **labels)
    assert_close(y, _heads(first, first, second, second), "head h reads h // groups, not h % n_kv_heads")


def test_true_in_the_mask_means_may_attend(attention):
    q, k, v = _heads([[0.0]]), _heads([[0.0], [0.0]]), _heads([[6.0], [12.0]])
    assert_close(attention(q, k, v, mask=tensor([[True, False]])), _heads([[6.0]]))


def test_the_mask_and_causal_both_have_to_allow(attention):
    same, v = _heads([[0.0], [0.0]]), _heads([[6.0], [12.0]])
    y = attention(same, same, v, causal=True, mask=tensor([[True, True], [False, True]]))
    assert_close(y, _heads([[6.0], [12.0]]))


def test_a_query_that_may_attend_to_nothing_gives_zeros(attention):
    same, v = _heads([[1.0], [1.0]]), _heads([[6.0], [12.0]])
    y = attention(same, same, v, mask=tensor([[False, False], [True, True]]))
    assert_identical(y[..., :1, :], _heads([[0.0]]), "0/0: a row of -inf has no softmax")


def test_a_query_that_the_mask_and_causal_leave_nothing_together_gives_zeros(attention):
    # The mask leaves query 0 the key 1, which causal hides.
    same, v = _heads([[1.0], [1.0]]), _heads([[6.0], [12.0]])
    y = attention(same, same, v, mask=tensor([[False, True], [True, True]]))
    assert_close(y, _heads([[0.0], [9.0]]), "whether a row is empty: by mask and causal together")


def test_a_hidden_key_stays_hidden_however_low_the_visible_scores_are(attention):
    # Scores 0 (hidden) and -1e5: a hidden score of -1e4 would win.
    y = attention(_heads([[1.0]]), _heads([[0.0], [-1e5]]), _heads([[6.0], [12.0]]), mask=tensor([[False, True]]))
    assert_close(y, _heads([[12.0]]), "what hidden scores become: -inf, no finite number")


def test_a_later_key_stays_hidden_however_low_the_visible_scores_are(attention):
    y = attention(_heads([[1.0], [1.0]]), _heads([[-1e5], [0.0]]), _heads([[6.0], [12.0]]))
    assert_close(y, _heads([[6.0], [12.0]]), "what hidden scores become: -inf, no finite number")


def test_scores_of_a_thousand_do_not_overflow(attention):
    # The second score, 1000 below the first, has no weight that a float could show.
    y = attention(_heads([[1.0]]), _heads([[1000.0], [0.0]]), _heads([[6.0], [12.0]]))
    assert_close(y, _heads([[6.0]]), "exp(1000): subtract the largest score first")


def test_the_weights_of_each_query_end_at_itself_and_sum_to_one(attention, imshow):
    q, k = tensor(torch.linspace(1, 9, 36).square().sin().reshape(2, 1, 1, 6, 3).tolist())
    # Values that are the rows of the identity, three features at a time, come out as the weights themselves.
    eye = torch.eye(6).reshape(6, 2, 3)
    weights = {
        causal: torch.cat([attention(q, k, tensor(eye[None, None, :, i].tolist()), causal)[0, 0] for i in (0, 1)], -1)
        for causal in (False, True)
    }
    for causal, title in ((False, "weights without a mask"), (True, "causal")):
        imshow(weights[causal], title=title, xlabel="key", ylabel="query", vmin=0, vmax=1)
    for w in weights.values():
        assert_close(w.sum(dim=-1), torch.ones_like(w[0]))
    assert_identical(weights[True], weights[True].tril())


def test_scores_beyond_what_float16_holds_do_not_overflow(attention):
    # 64 · 100 · 100 / 8 = 80000, and float16 ends at 65504. The other key scores 79200, so it has no weight left.
    q = tensor([[[[100.0] * 64]]], torch.float16)
    k, v = tensor([[[[100.0] * 64, [99.0] * 64]]], torch.float16), tensor([[[[1.0] * 64, [3.0] * 64]]], torch.float16)
    assert_close(attention(q, k, v), torch.ones_like(q), "the dtype of the scores: at least float32")


def test_without_causal_there_may_be_more_queries_than_keys(attention):
    q, k = tensor([[[[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]]]), tensor([[[[1.0, 1.0]]]])
    assert_close(attention(q, k, 7 * k, causal=False), tensor([[[[7.0, 7.0]] * 3]]))


@pytest.mark.float64
def test_a_query_sees_five_thousand_keys(attention):
    # In float64: the roundings of 5000 equal terms, added one after another, all point the same way.
    k = tensor([[[[0.0, 0.0]] * 5000]], torch.float64)
    v = tensor([[[[float(i < 2500), 1.0] for i in range(5000)]]], torch.float64)
    assert_close(
        attention(k[:, :, :1], k, v), tensor([[[[0.5, 1.0]]]], torch.float64), "a window, or a block that is left out"
    )


def test_a_query_without_any_key_gives_zeros(attention):
    q, none = tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), tensor([[[[1.0, 2.0]]]])[:, :, :0]
    assert_close(attention(q, none, none, causal=False), torch.zeros_like(q), "no keys: kv_len 0")


@pytest.mark.refusal
@pytest.mark.parametrize("n_kv_heads", [3, 0])
def test_key_heads_that_do_not_divide_the_query_heads_are_refused(attention, n_kv_heads):
    q, k = torch.ones(1, 4, 2, 8), torch.ones(1, n_kv_heads, 2, 8)
    with pytest.raises(ValueError, match=f"attention: n_kv_heads must divide n_heads, got {n_kv_heads} and 4"):
        attention(q, k, k)


@pytest.mark.refusal
def test_more_queries_than_positions_are_refused_where_causal(attention):
    q, k = torch.ones(1, 1, 5, 8), torch.ones(1, 1, 3, 8)
    with pytest.raises(ValueError, match="attention: causal needs q_len <= kv_len, got 5 and 3"):
        attention(q, k, k)


@pytest.mark.refusal
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 1, 1, 1), (1, 1, 1, 2, 2)])
def test_a_mask_that_does_not_broadcast_is_refused(attention, shape):
    x = torch.ones(1, 1, 2, 8)
    sentence = re.escape(f"attention: mask must broadcast to [1, 1, 2, 2], got {list(shape)}")
    with pytest.raises(ValueError, match=sentence):
        attention(x, x, x, mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.refusal
def test_a_mask_of_numbers_is_refused(attention):
    x = torch.ones(1, 1, 2, 8)
    with pytest.raises(ValueError, match="attention: mask must be bool, got float"):
        attention(x, x, x, mask=torch.zeros(2, 2))


@pytest.mark.tensors
@pytest.mark.refusal
def test_keys_or_values_of_another_dtype_than_the_queries_are_refused(attention):
    q = torch.ones(1, 1, 2, 4)
    with pytest.raises(ValueError, match="attention: v must be float32 like q, got float16"):
        attention(q, q, q.half())


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 3), (1, 1, 2, 3), (2, 1), (1, 1)])
def test_a_mask_that_hides_nothing_changes_nothing(attention, shape):
    # The last 2 of 3 positions: shapes that differ, so that a short cut for full masks shows where it aligns causal.
    q, k = _heads([[0.0], [0.0]]), _heads([[0.0], [0.0], [0.0]])
    y = attention(q, k, _heads([[6.0], [12.0], [30.0]]), mask=tensor(True).expand(shape))
    assert_close(y, _heads([[9.0], [16.0]]), "what a mask of nothing but True does to causal")


def test_a_mask_of_two_axes_is_for_queries_and_keys_even_where_it_would_fit_the_batch(attention):
    # Two entries, two queries, two keys: [2 2] is [q_len kv_len] and never [batch kv_len].
    same, v = tensor([[[[0.0], [0.0]]]] * 2), tensor([[[[6.0], [12.0]]]] * 2)
    y = attention(same, same, v, causal=False, mask=tensor([[True, False], [False, True]]))
    assert_close(y, v, "the axes that the mask is broadcast over: the last ones")
