"""The gradient of attention: back through the values, the softmax and the scores."""

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


def _one_query(attention_backward, grad=1.0, query=1.0):
    """One feature, so the scale is 1. Scores 0 and ln 3, weights 1/4 and 3/4, values 8 and 16."""
    keys, values = _heads([[0.0], [LOG3 / query]]), _heads([[8.0], [16.0]])
    return attention_backward(_heads([[grad]]), _heads([[query]]), keys, values, causal=False)


def test_a_value_gets_as_much_of_grad_as_it_has_weight(attention_backward):
    _, _, grad_v = _one_query(attention_backward)
    assert_close(grad_v, _heads([[0.25], [0.75]]), "grad_v: the weights, not the values")


def test_a_score_counts_by_how_far_its_value_is_from_the_mean(attention_backward):
    # The result is 14, so the scores get 1/4 · (8 - 14) = -1.5 and 3/4 · (16 - 14) = 1.5, and the query is 1.
    _, grad_k, _ = _one_query(attention_backward)
    assert_close(grad_k, _heads([[-1.5], [1.5]]), "softmax: a larger score takes weight from every other key")


def test_the_query_gets_the_keys_and_the_keys_get_the_query(attention_backward):
    # The scores get -1.5 and 1.5: the query 1.5 times its key ln 3 / 2, the keys twice as much as the scores.
    grad_q, grad_k, _ = _one_query(attention_backward, query=2.0)
    assert_close(grad_q, _heads([[0.75 * LOG3]]), "a score is query times key: each gets the other")
    assert_close(grad_k, _heads([[-3.0], [3.0]]), "a score is query times key: each gets the other")


def test_grad_scales_all_three(attention_backward):
    grad_q, grad_k, grad_v = _one_query(attention_backward, grad=-4.0)
    assert_close(grad_q, _heads([[-6 * LOG3]]), "grad: what comes in is not 1")
    assert_close(grad_k, _heads([[6.0], [-6.0]]))
    assert_close(grad_v, _heads([[-1.0], [-3.0]]))


def test_the_scale_of_the_scores_stands_in_both_gradients_once(attention_backward):
    # Four features: products 0 and 2 · ln 3, scores 0 and ln 3. They get -1.5 and 1.5 again, and the products half.
    q, k = _heads([[1.0, 0.0, 0.0, 0.0]]), _heads([[0.0] * 4, [2 * LOG3, 0.0, 0.0, 0.0]])
    v = _heads([[8.0, 0.0, 0.0, 0.0], [16.0, 0.0, 0.0, 0.0]])
    grad_q, grad_k, _ = attention_backward(q, q, k, v, causal=False)
    assert_close(grad_q, _heads([[1.5 * LOG3, 0.0, 0.0, 0.0]]), "the scale: head_dim to the power -1/2, once")
    assert_close(grad_k, _heads([[-0.75, 0.0, 0.0, 0.0], [0.75, 0.0, 0.0, 0.0]]), "the scale: once in grad_k too")


def test_a_key_gets_something_from_itself_and_what_comes_after_it(attention_backward):
    # Queries 0, 1 and 2 weigh what they see by 1, 1/2 and 1/3, and each grad is 6.
    same, grad = _heads([[0.0], [0.0], [0.0]]), _heads([[6.0], [6.0], [6.0]])
    _, _, grad_v = attention_backward(grad, same, same, _heads([[1.0], [2.0], [3.0]]))
    assert_close(grad_v, _heads([[6.0 + 3 + 2], [3.0 + 2], [2.0]]), "causal, and the sum over the queries")


def test_fewer_queries_than_keys_are_the_last_ones(attention_backward):
    q, same, grad = _heads([[0.0], [0.0]]), _heads([[0.0], [0.0], [0.0]]), _heads([[6.0], [6.0]])
    _, _, grad_v = attention_backward(grad, q, same, _heads([[1.0], [2.0], [3.0]]))
    assert_close(grad_v, _heads([[3.0 + 2], [3.0 + 2], [2.0]]), "causal is aligned at the last key, not at the first")


def test_without_causal_every_key_gets_something_from_every_query(attention_backward):
    same, grad = _heads([[0.0], [0.0]]), _heads([[6.0], [10.0]])
    _, _, grad_v = attention_backward(grad, same, same, _heads([[1.0], [2.0]]), causal=False)
    assert_close(grad_v, _heads([[8.0], [8.0]]))


def test_a_key_head_gets_the_sum_over_the_query_heads_that_read_it(attention_backward):
    # Four query heads, two key heads, one position, whose weight is 1.
    q, k, grad = _heads(*[[[0.0]]] * 4), _heads(*[[[0.0]]] * 2), _heads([[1.0]], [[2.0]], [[4.0]], [[8.0]])
    _, _, grad_v = attention_backward(grad, q, k, k)
    assert_close(grad_v, _heads([[3.0]], [[12.0]]), "heads 0 and 1 share the first key head: their sum, no mean")


def test_the_keys_are_shared_as_the_values_are(attention_backward):
    # Keys of zero weigh 1/2 each: in both heads the scores get 1/2 · (8 - 12) = -2 and 2. The queries are 1 and 2.
    keys, values = _heads([[0.0], [0.0]]), _heads([[8.0], [16.0]])
    queries, grad = _heads([[1.0]], [[2.0]]), _heads([[1.0]], [[1.0]])
    _, grad_k, _ = attention_backward(grad, queries, keys, values, causal=False)
    assert_close(grad_k, _heads([[-2.0 - 4], [2.0 + 4]]), "the sum over the group, for keys and for values")


def test_a_hidden_key_gets_exactly_nothing_and_hides_its_value(attention_backward):
    # Visible are the first two keys, as in the first example; the third would have the largest score and value.
    keys, values = _heads([[0.0], [LOG3], [50.0]]), _heads([[8.0], [16.0], [1000.0]])
    mask, one = tensor([[True, True, False]]), _heads([[1.0]])
    grad_q, grad_k, grad_v = attention_backward(one, one, keys, values, causal=False, mask=mask)
    assert_close(grad_q, _heads([[1.5 * LOG3]]), "True in the mask means may attend")
    assert_close(grad_k, _heads([[-1.5], [1.5], [0.0]]))
    assert_close(grad_v, _heads([[0.25], [0.75], [0.0]]))
    assert_identical(grad_k[:, :, 2:], torch.zeros_like(one), "what is hidden: exactly zero")
    assert_identical(grad_v[:, :, 2:], torch.zeros_like(one), "what is hidden: exactly zero")


def test_the_mask_and_causal_both_have_to_allow(attention_backward):
    # Query 0 sees key 0, and query 1 key 1 alone.
    same, grad = _heads([[0.0], [0.0]]), _heads([[5.0], [7.0]])
    _, _, grad_v = attention_backward(grad, same, same, same, mask=tensor([[True, True], [False, True]]))
    assert_close(grad_v, _heads([[5.0], [7.0]]), "mask and causal together")


def test_a_query_that_may_attend_to_nothing_has_zeros_and_gives_none(attention_backward):
    # Query 1 is that of the first example.
    q, keys, values = _heads([[1.0], [1.0]]), _heads([[0.0], [LOG3]]), _heads([[8.0], [16.0]])
    mask, grad = tensor([[False, False], [True, True]]), _heads([[100.0], [1.0]])
    grad_q, grad_k, grad_v = attention_backward(grad, q, keys, values, mask=mask)
    assert_close(grad_q, _heads([[0.0], [1.5 * LOG3]]), "0/0: a row of -inf has no softmax")
    assert_close(grad_k, _heads([[-1.5], [1.5]]))
    assert_close(grad_v, _heads([[0.25], [0.75]]), "nothing from a query that sees nothing")


def test_a_query_that_the_mask_and_causal_leave_nothing_together_gives_none(attention_backward):
    # The mask leaves query 0 the key 1, which causal hides.
    same, grad = _heads([[0.0], [0.0]]), _heads([[100.0], [6.0]])
    mask = tensor([[False, True], [True, True]])
    grad_q, _, grad_v = attention_backward(grad, same, same, _heads([[8.0], [16.0]]), mask=mask)
    assert_close(grad_v, _heads([[3.0], [3.0]]), "whether a row is empty: by mask and causal together")
    assert_identical(grad_q[:, :, :1], _heads([[0.0]]))


def test_a_hidden_key_stays_hidden_however_low_the_visible_scores_are(attention_backward):
    # Scores 0 (hidden) and -1e5: a hidden score of -1e4 would win.
    one, keys = _heads([[1.0]]), _heads([[0.0], [-1e5]])
    _, _, grad_v = attention_backward(one, one, keys, _heads([[6.0], [12.0]]), mask=tensor([[False, True]]))
    assert_close(grad_v, _heads([[0.0], [1.0]]), "what hidden scores become: -inf, no finite number")


def test_scores_of_a_thousand_do_not_overflow(attention_backward):
    # The second score, 1000 below the first, has no weight that a float could show: nothing depends on any score.
    one, keys = _heads([[1.0]]), _heads([[1000.0], [0.0]])
    grad_q, grad_k, grad_v = attention_backward(one, one, keys, _heads([[6.0], [12.0]]), causal=False)
    assert_close(grad_v, _heads([[1.0], [0.0]]), "exp(1000): subtract the largest score first")
    assert_close(grad_k, _heads([[0.0], [0.0]]))
    assert_close(grad_q, _heads([[0.0]]))


def test_where_all_values_are_alike_no_score_matters(attention_backward):
    keys, values = _heads([[0.0], [LOG3]]), _heads([[8.0], [8.0]])
    grad_q, grad_k, _ = attention_backward(_heads([[1.0]]), _heads([[1.0]]), keys, values, causal=False)
    assert_close(grad_q, _heads([[0.0]]), "softmax: the weighted mean is taken away")
    assert_close(grad_k, _heads([[0.0], [0.0]]), "softmax: the weighted mean is taken away")


def test_what_one_score_gains_the_others_of_its_query_lose(attention_backward, imshow):
    # Queries that are the rows of the identity leave the gradients of the scores, times a scale, in grad_k.
    k, v = tensor(torch.linspace(1, 9, 72).square().sin().reshape(2, 1, 1, 6, 6).tolist())
    grad, eye = tensor(torch.ones(1, 1, 6, 6).tolist()), tensor(torch.eye(6)[None, None].tolist())
    _, grad_k, _ = attention_backward(grad, eye, k, v)
    of_scores = grad_k[0, 0].T * math.sqrt(6)
    imshow(of_scores, title="gradient of the scores", xlabel="key", ylabel="query", signed=True)
    assert_close(of_scores.sum(dim=-1), torch.zeros_like(of_scores[0]), "softmax: its weights always sum to one")
    assert_identical(of_scores, of_scores.tril(), "causal: a later key gets nothing")


def test_scores_beyond_what_float16_holds_do_not_overflow(attention_backward):
    # 64 · 100 · 100 / 8 = 80000, and float16 ends at 65504. The other key scores 79200, so it has no weight left.
    q, grad = tensor([[[[100.0] * 64]]], torch.float16), tensor([[[[2.0] * 64]]], torch.float16)
    k, v = tensor([[[[100.0] * 64, [99.0] * 64]]], torch.float16), tensor([[[[1.0] * 64, [3.0] * 64]]], torch.float16)
    grad_q, _, grad_v = attention_backward(grad, q, k, v)
    assert_close(grad_v, tensor([[[[2.0] * 64, [0.0] * 64]]], torch.float16), "the dtype of the scores: float32")
    assert_close(grad_q, torch.zeros_like(q))


def test_five_thousand_queries_add_up_in_bfloat16(attention_backward):
    # bfloat16 counts to 256 and no further.
    ones = torch.ones(1, 1, 5000, 2, dtype=torch.bfloat16, device=tensor(0.0).device)
    one = ones[:, :, :1]
    _, _, grad_v = attention_backward(ones, ones, one, one, causal=False)
    assert_close(grad_v, 5000 * one, "sums over queries: at least in float32")


def test_without_causal_there_may_be_more_queries_than_keys(attention_backward):
    grad, q, k = _heads([[1.0], [2.0], [4.0]]), _heads([[0.0], [1.0], [2.0]]), _heads([[1.0]])
    _, _, grad_v = attention_backward(grad, q, k, k, causal=False)
    assert_close(grad_v, _heads([[7.0]]))


def test_a_query_without_any_key_has_zeros(attention_backward):
    q, none = _heads([[1.0, 2.0], [3.0, 4.0]]), _heads([[1.0, 2.0]])[:, :, :0]
    grad_q, grad_k, grad_v = attention_backward(q, q, none, none, causal=False)
    assert_close(grad_q, torch.zeros_like(q), "no keys: kv_len 0")
    assert_close(grad_k, none)
    assert_close(grad_v, none)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 3), (1, 1, 2, 3), (2, 1), (1, 1)])
def test_a_mask_that_hides_nothing_changes_nothing(attention_backward, shape):
    # The last 2 of 3 positions: shapes that differ, so that a short cut for full masks shows where it aligns causal.
    q, same, grad = _heads([[0.0], [0.0]]), _heads([[0.0], [0.0], [0.0]]), _heads([[6.0], [6.0]])
    _, _, grad_v = attention_backward(grad, q, same, same, mask=tensor(True).expand(shape))
    assert_close(grad_v, _heads([[5.0], [5.0], [2.0]]), "what a mask of nothing but True does to causal")


def test_a_mask_of_two_axes_is_for_queries_and_keys_even_where_it_would_fit_the_batch(attention_backward):
    # Two entries, two queries, two keys: [2 2] is [q_len kv_len] and never [batch kv_len].
    same, grad = tensor([[[[0.0], [0.0]]]] * 2), tensor([[[[6.0], [12.0]]]] * 2)
    mask = tensor([[True, False], [False, True]])
    _, _, grad_v = attention_backward(grad, same, same, same, causal=False, mask=mask)
    assert_close(grad_v, grad, "the axes that the mask is broadcast over: the last ones")


@pytest.mark.refusal
@pytest.mark.parametrize("n_kv_heads", [3, 0])
def test_key_heads_that_do_not_divide_the_query_heads_are_refused(attention_backward, n_kv_heads):
    q, k = torch.ones(1, 4, 2, 8), torch.ones(1, n_kv_heads, 2, 8)
    with pytest.raises(ValueError, match=f"attention_backward: n_kv_heads must divide n_heads, got {n_kv_heads} and 4"):
        attention_backward(q, q, k, k)


@pytest.mark.refusal
def test_more_queries_than_positions_are_refused_where_causal(attention_backward):
    q, k = torch.ones(1, 1, 5, 8), torch.ones(1, 1, 3, 8)
    with pytest.raises(ValueError, match="attention_backward: causal needs q_len <= kv_len, got 5 and 3"):
        attention_backward(q, q, k, k)


@pytest.mark.refusal
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 1, 1, 1), (1, 1, 1, 2, 2)])
def test_a_mask_that_does_not_broadcast_is_refused(attention_backward, shape):
    x = torch.ones(1, 1, 2, 8)
    sentence = re.escape(f"attention_backward: mask must broadcast to [1, 1, 2, 2], got {list(shape)}")
    with pytest.raises(ValueError, match=sentence):
        attention_backward(x, x, x, x, mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.refusal
def test_a_mask_of_numbers_is_refused(attention_backward):
    x = torch.ones(1, 1, 2, 8)
    with pytest.raises(ValueError, match="attention_backward: mask must be bool, got float"):
        attention_backward(x, x, x, x, mask=torch.zeros(2, 2))


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(attention_backward):
    x = torch.ones(1, 1, 2, 8)
    sentence = r"attention_backward: q must be \[batch n_heads q_len head_dim\] with .*q_len=3.*, got \[1, 1, 2, 8\]"
    with pytest.raises(ValueError, match=sentence):
        attention_backward(torch.ones(1, 1, 3, 8), x, x, x)
