"""Self-attention: every position asks all positions before it, in several heads at once."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

EYE = [[1.0, 0.0], [0.0, 1.0]]
ZERO = [[0.0, 0.0], [0.0, 0.0]]
STILL = [0.0]  # a frequency of zero: nothing is rotated


def test_without_scores_each_position_gets_the_mean_of_the_values_so_far(self_attention):
    # w_q = 0: all scores are equal. Values (4, 0) and (0, 2): the second position gets (2, 1).
    x = tensor([[[4.0, 0.0], [0.0, 2.0]]])
    y = self_attention(x, tensor(ZERO), tensor(EYE), tensor(EYE), tensor(EYE), 1, 1, tensor([0, 1]), tensor(STILL))
    assert_close(y, tensor([[[4.0, 0.0], [2.0, 1.0]]]))


def test_the_first_position_is_its_own_value_through_w_v_and_w_o(self_attention):
    # w_v makes (1, 2) into (1 + 4, 3 + 8) = (5, 11), and w_o that into (5 + 11, 11).
    w_v, w_o = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[1.0, 1.0], [0.0, 1.0]])
    x = tensor([[[1.0, 2.0]]])
    y = self_attention(x, tensor(EYE), tensor(EYE), w_v, w_o, 1, 1, tensor([0]), tensor(STILL))
    assert_close(y, tensor([[[16.0, 11.0]]]), "weights are [out in]: x is multiplied by their transpose")


def test_w_q_and_w_k_have_one_row_for_each_feature_of_the_query_and_the_key(self_attention):
    # Query 1 is (sqrt(2) · ln 3, 0), the keys are (0, 0) and (1, 0): scores 0 and ln 3, weights 1/4 and 3/4.
    # Were w_q or w_k transposed, both scores would be 0.
    w_q, w_k = tensor([[0.0, math.sqrt(2) * math.log(3)], [0.0, 0.0]]), tensor([[0.0, 1.0], [0.0, 0.0]])
    x = tensor([[[1.0, 0.0], [0.0, 1.0]]])
    y = self_attention(x, w_q, w_k, tensor(EYE), tensor(EYE), 1, 1, tensor([0, 1]), tensor(STILL))
    assert_close(y[:, 1], tensor([[0.25, 0.75]]), "weights are [out in]: x is multiplied by their transpose")


def test_queries_and_keys_are_rotated(self_attention):
    # All queries and keys point east; at position 1 both are turned north. So query 1, of length sqrt(2) · ln 3,
    # scores 0 with key 0 and ln 3 with key 1: weights 1/4 and 3/4. The values are 8 and 0: 1/4 · 8 = 2.
    east, third = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    w_k, w_v = tensor([east, [0.0] * 3]), tensor([third, [0.0] * 3])
    w_o = tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    x, quarter = tensor([[[1.0, 0.0, 8.0], [1.0, 0.0, 0.0]]]), tensor([math.pi / 2])
    y = self_attention(x, math.sqrt(2) * math.log(3) * w_k, w_k, w_v, w_o, 1, 1, tensor([0, 1]), quarter)
    assert_close(y[:, 1], tensor([[2.0, 0.0, 0.0]]), "rope over q and k: over one or none of them it is 4 or 6")


def test_values_are_not_rotated(self_attention):
    # One position at a quarter turn sees only itself: were its value rotated, (1, 0) would come out as (0, 1).
    x = tensor([[[1.0, 0.0]]])
    quarter = tensor([math.pi / 2])
    y = self_attention(x, tensor(EYE), tensor(EYE), tensor(EYE), tensor(EYE), 1, 1, tensor([1]), quarter)
    assert_close(y, x, "rope goes over q and k only")


def test_head_h_is_the_rows_from_h_times_head_dim(self_attention):
    # Two query heads of two features over one key head. Head 0 has w_q = 0 and so weighs both positions alike;
    # head 1 scores the two positions 0 and sqrt(2) · ln 3, over sqrt(2): weights 1/4 and 3/4.
    x = tensor([[[0.0, 8.0], [1.0, 0.0]]])
    w_q = tensor([[0.0, 0.0], [0.0, 0.0], [math.sqrt(2) * math.log(3), 0.0], [0.0, 0.0]])
    w_v, w_o = tensor([[0.0, 1.0], [0.0, 0.0]]), tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    y = self_attention(x, w_q, tensor(EYE), w_v, w_o, 2, 1, tensor([0, 1]), tensor(STILL))
    # Value of position 0 is 8, of position 1 is 0: head 0 gives 4, head 1 gives 1/4 · 8 = 2.
    assert_close(y[:, 1], tensor([[4.0, 2.0]]), "how the rows of w_q are split into heads")


def test_where_all_tokens_are_alike_one_head_may_take_their_mean_and_another_look_near(self_attention, imshow):
    # Features 0 to 7 say which token it is, and are the values; feature 8 is 1 for all and makes queries and keys.
    # Head 0 asks nothing; head 1 scores 8 · cos(0.3 · distance) / sqrt(8).
    seq, like = 8, torch.zeros(16, 16)
    x = torch.eye(seq, 16)
    x[:, 8] = like[8, 8] = 1.0
    w_k, w_q = tensor(like[8:].tolist()), tensor((8 * like).tolist())
    positions, frequencies = tensor(list(range(seq))), tensor([0.3, 0.0, 0.0, 0.0])
    w_v, w_o = tensor(torch.eye(seq, 16).tolist()), tensor(torch.eye(16).tolist())
    y = self_attention(tensor([x.tolist()]), w_q, w_k, w_v, w_o, 2, 1, positions, frequencies)[0]
    mean, near = y[:, :seq], y[:, seq:]
    for weights, title in ((mean, "head 0: the mean so far"), (near, "head 1: rope lets it look near")):
        imshow(weights, title=title, xlabel="looked at", ylabel="position", vmin=0, vmax=1)
    assert_close(mean, tensor((torch.ones(seq, seq).tril() / torch.arange(1, seq + 1)[:, None]).tolist()))
    distance = torch.arange(seq)[:, None] - torch.arange(seq)
    scores = (8 * (0.3 * distance).cos() / math.sqrt(8)).masked_fill(distance < 0, -math.inf)
    assert_close(near, tensor(scores.softmax(dim=-1).tolist()))
    assert (near[-1].diff() > 0).all()


@pytest.mark.refusal
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(3, 2), (0, 1), (1, 0), (0, 0), (-2, 1), (2, -1)])
def test_numbers_of_heads_that_do_not_divide_are_refused(self_attention, n_heads, n_kv_heads):
    x, w = torch.ones(1, 1, 6), torch.ones(6, 6)
    with pytest.raises(ValueError, match=f"n_kv_heads must divide n_heads, got {n_kv_heads} and {n_heads}"):
        self_attention(x, w, w, w, w, n_heads, n_kv_heads, torch.tensor([0]), torch.ones(1))


@pytest.mark.refusal
def test_the_rows_of_both_projections_are_told(self_attention):
    x, w_q, w_k = torch.ones(1, 1, 6), torch.ones(8, 6), torch.ones(2, 6)
    with pytest.raises(ValueError, match="n_heads=2 and n_kv_heads=2 times one head_dim, got 8 and 2"):
        self_attention(x, w_q, w_k, w_k, torch.ones(6, 8), 2, 2, torch.tensor([0]), torch.ones(2))


@pytest.mark.refusal
def test_rows_that_do_not_divide_into_the_heads_are_refused(self_attention):
    x, w = torch.ones(1, 1, 6), torch.ones(6, 6)
    with pytest.raises(ValueError, match="must be n_heads=4 and n_kv_heads=4 times one head_dim, got 6 and 6"):
        self_attention(x, w, w, w, w, 4, 4, torch.tensor([0]), torch.ones(1))
