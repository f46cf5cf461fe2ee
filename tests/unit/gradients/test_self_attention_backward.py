"""The gradient of self-attention: back through w_o, attention, the turns and the three projections."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

EYE = [[1.0, 0.0], [0.0, 1.0]]
ZERO = [[0.0, 0.0], [0.0, 0.0]]
STILL = [0.0]  # a frequency of zero: nothing is rotated
LOG3 = math.log(3)


def test_where_a_token_is_alone_everything_comes_back_through_w_o_and_w_v(self_attention_backward):
    # It attends to itself with weight 1. Its value is (1 + 4, 3 + 8) = (5, 11), and w_o makes of that (16, 11).
    # The head gets w_o transposed times (1, 10) = (1, 1 + 10), and x gets w_v transposed times (1, 11) = (34, 46).
    w_v, w_o = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[1.0, 1.0], [0.0, 1.0]])
    grad, x = tensor([[[1.0, 10.0]]]), tensor([[[1.0, 2.0]]])
    grad_x, grad_w_q, grad_w_k, grad_w_v, grad_w_o = self_attention_backward(
        grad, x, tensor(EYE), tensor(EYE), w_v, w_o, 1, 1, tensor([0]), tensor(STILL)
    )
    assert_close(grad_x, tensor([[[34.0, 46.0]]]), "weights are [out in]: backwards they are not transposed")
    # Each weight gets what comes back to its result, times what it was multiplied by.
    assert_close(grad_w_o, tensor([[5.0, 11.0], [50.0, 110.0]]), "grad_w_o: grad times the heads")
    assert_close(grad_w_v, tensor([[1.0, 2.0], [11.0, 22.0]]), "grad_w_v: what the values get, times x")
    # Its only score has nothing to compete with.
    assert_close(grad_w_q, tensor(ZERO))
    assert_close(grad_w_k, tensor(ZERO))


def test_x_gets_something_as_query_as_key_and_as_value(self_attention_backward):
    # Query 1 is (sqrt(2) · ln 3, 0), the keys are (0, 0) and (1, 0): scores 0 and ln 3, weights 1/4 and 3/4. The
    # values are (8, 0) and (16, 0), so that the scores get -1.5 and 1.5. Over sqrt(2), query 1 gets 1.060660 times
    # key 1, and the keys get -ln 3 · 1.5 = -1.647918 and 1.647918.
    w_q, w_k = tensor([[math.sqrt(2) * LOG3, 0.0], [0.0, 0.0]]), tensor([[0.0, 1.0], [0.0, 0.0]])
    w_v, x = tensor([[8.0, 8.0], [0.0, 0.0]]), tensor([[[1.0, 0.0], [1.0, 1.0]]])
    grad = tensor([[[0.0, 0.0], [1.0, 0.0]]])
    grad_x, grad_w_q, grad_w_k, grad_w_v, _ = self_attention_backward(
        grad, x, w_q, w_k, w_v, tensor(EYE), 1, 1, tensor([0, 1]), tensor(STILL)
    )
    # Token 0: key (0, -1.647918), value 1/4 · (8, 8). Token 1: query (1.647918, 0), key (0, 1.647918), value (6, 6).
    expected = tensor([[[2.0, 0.352082], [7.647918, 7.647918]]])
    assert_close(grad_x, expected, "x reaches the result by q, k and v: three parts that add up")
    assert_close(grad_w_q, tensor([[1.060660, 1.060660], [0.0, 0.0]]), "grad_w_q: what the queries get, times x")
    # Token 0 is (1, 0) and token 1 is (1, 1).
    assert_close(grad_w_k, tensor([[0.0, 1.647918], [0.0, 0.0]]), "grad_w_k: the sum over the tokens")
    assert_close(grad_w_v, tensor([[1.0, 0.75], [0.0, 0.0]]), "grad_w_v: the sum over the tokens")


def test_queries_and_keys_are_turned_back(self_attention_backward):
    # All queries and keys point east; at position 1 both are turned north: query 1, of length sqrt(2) · ln 3, weighs
    # keys 0 and 1 by 1/4 and 3/4. The values are 8 and 0, so the scores get 1/4 · 6 = 1.5 and 3/4 · -2 = -1.5.
    east, third = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    w_k, w_v = tensor([east, [0.0] * 3]), tensor([third, [0.0] * 3])
    w_o = tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    x, quarter = tensor([[[1.0, 0.0, 8.0], [1.0, 0.0, 0.0]]]), tensor([math.pi / 2])
    grad = tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    _, grad_w_q, grad_w_k, _, _ = self_attention_backward(
        grad, x, math.sqrt(2) * LOG3 * w_k, w_k, w_v, w_o, 1, 1, tensor([0, 1]), quarter
    )
    # Query 1 gets (1.5 east - 1.5 north) / sqrt(2) as it was turned; turned back, east is south and north is east.
    expected = tensor([[-1.060660, 0.0, 0.0], [-1.060660, 0.0, 0.0]])
    assert_close(grad_w_q, expected, "rope_backward turns by minus the angle")
    # Key 0 gets 1.647918 north and is not turned. Key 1 gets as much south, which was west before it was turned.
    expected = tensor([[-1.647918, 0.0, 0.0], [1.647918, 0.0, 13.183347]])
    assert_close(grad_w_k, expected, "rope_backward over q and k, each with its positions")


def test_values_are_not_turned_back(self_attention_backward):
    # One position at a quarter turn sees only itself: turned back, (1, 0) would come out as (0, -1).
    grad, x, quarter = tensor([[[1.0, 0.0]]]), tensor([[[3.0, 5.0]]]), tensor([math.pi / 2])
    eye = tensor(EYE)
    grad_x, _, _, grad_w_v, _ = self_attention_backward(grad, x, eye, eye, eye, eye, 1, 1, tensor([1]), quarter)
    assert_close(grad_x, grad, "rope goes over q and k only")
    assert_close(grad_w_v, tensor([[3.0, 5.0], [0.0, 0.0]]))


def test_head_h_is_the_columns_of_w_o_from_h_times_head_dim(self_attention_backward):
    # Two query heads of two features over one value head, one token. w_o reads the first feature of each head, so
    # head 0 gets (1, 0), head 1 gets (10, 0), and the value that both read gets the sum.
    grad, x, eye = tensor([[[1.0, 10.0]]]), tensor([[[3.0, 5.0]]]), tensor(EYE)
    w_q, w_o = tensor([[0.0, 0.0]] * 4), tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    grad_x, _, _, grad_w_v, grad_w_o = self_attention_backward(
        grad, x, w_q, eye, eye, w_o, 2, 1, tensor([0]), tensor(STILL)
    )
    assert_close(grad_x, tensor([[[11.0, 0.0]]]), "how what comes back from w_o is split into heads")
    assert_close(grad_w_v, tensor([[33.0, 55.0], [0.0, 0.0]]))
    assert_close(grad_w_o, tensor([[3.0, 5.0, 3.0, 5.0], [30.0, 50.0, 30.0, 50.0]]), "the heads side by side")


def test_the_tokens_of_two_heads_are_kept_apart(self_attention_backward):
    # Queries of zero, two heads of two features, of which w_o adds up the first. Token 0 gets 8 from itself and half of
    # the 4 that come to token 1, which keeps the other half; in both heads, and the value is the same feature.
    x, w_q, eye = tensor([[[1.0, 0.0], [0.0, 1.0]]]), tensor([[0.0, 0.0]] * 4), tensor(EYE)
    w_o = tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    grad = tensor([[[8.0, 0.0], [4.0, 0.0]]])
    grad_x, *_ = self_attention_backward(grad, x, w_q, eye, eye, w_o, 2, 1, tensor([0, 1]), tensor(STILL))
    expected = tensor([[[2 * 8.0 + 2 * 2.0, 0.0], [2 * 2.0, 0.0]]])
    assert_close(grad_x, expected, "split the features into heads, then exchange heads and seq")


def test_a_gradient_at_one_token_comes_to_it_and_to_those_before_it(self_attention_backward, imshow):
    # Eight tokens; each in turn is the only one with a gradient.
    seq, d = 8, 4
    x, w = tensor(torch.linspace(1, 9, 32).square().sin().view(1, seq, d).tolist()), tensor(torch.eye(d).tolist())
    grads = tensor(torch.eye(seq)[:, :, None].expand(seq, seq, d).tolist())
    positions, frequencies = tensor(list(range(seq))), tensor([1.0, 0.1])
    grad_x, *_ = self_attention_backward(grads, x.expand(seq, -1, -1), 2 * w, 2 * w, w, w, 1, 1, positions, frequencies)
    reach = grad_x.abs().sum(dim=-1)
    title = "how much of the gradient at one token comes to each"
    imshow(reach, title=title, xlabel="token", ylabel="token with a gradient", vmin=0)
    assert_identical(reach, reach.tril(), "causal: nothing to later tokens")
    assert (reach[torch.ones(seq, seq).tril().bool()] > 0).all()


@pytest.mark.refusal
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(3, 2), (0, 1), (1, 0), (0, 0), (-2, 1), (2, -1)])
def test_numbers_of_heads_that_do_not_divide_are_refused(self_attention_backward, n_heads, n_kv_heads):
    x, w = torch.ones(1, 1, 6), torch.ones(6, 6)
    sentence = f"self_attention_backward: n_kv_heads must divide n_heads, got {n_kv_heads} and {n_heads}"
    with pytest.raises(ValueError, match=sentence):
        self_attention_backward(x, x, w, w, w, w, n_heads, n_kv_heads, torch.tensor([0]), torch.ones(1))


@pytest.mark.refusal
def test_the_rows_of_both_projections_are_told(self_attention_backward):
    x, w_q, w_k = torch.ones(1, 1, 6), torch.ones(8, 6), torch.ones(2, 6)
    with pytest.raises(ValueError, match="n_heads=2 and n_kv_heads=2 times one head_dim, got 8 and 2"):
        self_attention_backward(x, x, w_q, w_k, w_k, torch.ones(6, 8), 2, 2, torch.tensor([0]), torch.ones(2))


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(self_attention_backward):
    x, w = torch.ones(1, 1, 6), torch.ones(6, 6)
    sentence = r"self_attention_backward: x must be \[batch seq d_model\] with .*seq=2.*, got \[1, 1, 6\]"
    with pytest.raises(ValueError, match=sentence):
        self_attention_backward(torch.ones(1, 2, 6), x, w, w, w, w, 1, 1, torch.tensor([0]), torch.ones(3))
