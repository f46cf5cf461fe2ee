"""The gradient of cross-entropy: each token pulls its logits from the predicted probabilities to what really came."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

LN_3 = math.log(3)


def test_it_is_the_probability_less_one_for_the_target(cross_entropy_backward):
    # The powers are 1 and 3, the probabilities 1/4 and 3/4, and token 1 came: 1/4 and 3/4 - 1.
    look_at = "softmax of the logits, less one at the target"
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[0.0, LN_3]]), tensor([1]))
    assert_close(grad_logits, tensor([[0.25, -0.25]]), look_at)


def test_the_target_alone_has_one_taken_away(cross_entropy_backward):
    # Four equal logits have the probability 1/4 each.
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[7.0, 7.0, 7.0, 7.0]]), tensor([2]))
    assert_close(grad_logits, tensor([[0.25, 0.25, -0.75, 0.25]]), "one-hot: 1 at the target, 0 elsewhere")


def test_each_token_has_a_target_of_its_own_and_an_equal_share_of_the_mean(cross_entropy_backward):
    # Half of (1/4, 3/4 - 1) and half of (1/4 - 1, 3/4).
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[0.0, LN_3], [0.0, LN_3]]), tensor([1, 0]))
    expected = tensor([[0.125, -0.125], [-0.375, 0.375]])
    assert_close(grad_logits, expected, "1 / tokens, and the target of the row itself")


def test_the_mean_is_over_the_tokens_of_all_leading_axes(cross_entropy_backward):
    # Two texts of three tokens: a sixth of 1/2 or of -1/2 each.
    targets = tensor([[0, 1, 0], [1, 1, 0]])
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[[5.0, 5.0]] * 3] * 2), targets)
    expected = tensor([[[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]], [[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]]) / 12
    assert_close(grad_logits, expected, "1 / tokens: batch times seq")


def test_what_the_loss_is_multiplied_by_comes_in_as_grad(cross_entropy_backward):
    # Eight times the gradient of the first example.
    grad_logits = cross_entropy_backward(tensor(8.0), tensor([[0.0, LN_3]]), tensor([1]))
    assert_close(grad_logits, tensor([[2.0, -2.0]]), "grad: the loss need not be the last step")


def test_a_single_token_needs_no_leading_axis(cross_entropy_backward):
    assert_close(cross_entropy_backward(tensor(1.0), tensor([0.0, LN_3]), tensor(0)), tensor([-0.75, 0.75]))


def test_a_sure_right_answer_has_nothing_to_learn(cross_entropy_backward):
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[0.0, 10000.0, 0.0]]), tensor([1]))
    assert_close(grad_logits, tensor([[0.0, 0.0, 0.0]]), "take the largest logit out before exp")


def test_a_sure_wrong_answer_is_pushed_as_hard_as_there_is(cross_entropy_backward):
    # The probability of the target is e^-10000, 0 in any float; its gradient is 0 - 1 all the same.
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[0.0, 10000.0, 0.0]]), tensor([2]))
    assert_close(grad_logits, tensor([[0.0, 1.0, -1.0]]), "no division by the probability of the target")


def test_each_token_has_a_largest_logit_of_its_own(cross_entropy_backward):
    # Two sure tokens, one right and one wrong, 3,000 apart.
    grad_logits = cross_entropy_backward(tensor(2.0), tensor([[1000.0, 0.0], [-2000.0, -1000.0]]), tensor([0, 0]))
    assert_close(grad_logits, tensor([[0.0, 0.0], [-1.0, 1.0]]), "the largest logit: it is the token's own")


def test_an_impossible_token_is_left_where_it_is(cross_entropy_backward):
    # The other two share: 1/2 - 1, 0, 1/2.
    grad_logits = cross_entropy_backward(tensor(1.0), tensor([[0.0, -math.inf, 0.0]]), tensor([0]))
    assert_close(grad_logits, tensor([[-0.5, 0.0, 0.5]]), "inf - inf, or 0 · inf")


def test_seventy_thousand_equal_logits_have_their_shares_in_float16_too(cross_entropy_backward):
    # Each has 35000 / 70000 = 1/2. In float16 the sum of 70,000 ones is infinite, and nothing would be left.
    logits, targets = tensor([[0.0] * 70_000], torch.float16), tensor([69_999])
    grad_logits = cross_entropy_backward(tensor(35_000.0, torch.float16), logits, targets)
    assert_close(grad_logits[:, :-1], tensor([[0.5] * 69_999], torch.float16), "the sum: at least in float32")


@pytest.mark.tensors
def test_the_share_of_a_token_among_many_is_not_rounded_before_it_meets_grad(cross_entropy_backward):
    # 1/67 of each of 16,384 tokens is 1e-6, where float16 is no longer exact; times 16,384 it is 1/67.
    logits, targets = torch.zeros(16_384, 67, dtype=torch.float16), torch.zeros(16_384, dtype=torch.int64)
    grad_logits = cross_entropy_backward(tensor(16_384.0, torch.float16), tensor(logits), tensor(targets))
    ones = tensor(torch.ones(16_384, 66, dtype=torch.float16))
    assert_close(67 * grad_logits[:, 1:], ones, "round once, at the end")


def test_the_wrong_is_pushed_down_by_as_much_as_the_right_is_pulled_up(cross_entropy_backward, plot):
    # Two logits, x and 0: the probability of the first is 1 / (1 + e^-x).
    x = torch.linspace(-6, 6, 49)
    grads = [cross_entropy_backward(tensor(1.0), tensor([[at, 0.0]]), tensor([0]))[0] for at in x.tolist()]
    right, wrong = torch.stack(grads).T
    labels = {"xlabel": "how far the target's logit is ahead", "ylabel": "gradient"}
    plot(x, {"the target": right, "the other token": wrong}, title="what a token does to two logits", **labels)
    assert_close(right, tensor((x.double().sigmoid() - 1).tolist()))
    assert_close(wrong, -right)


@pytest.mark.parametrize("outside", [3, -1, -100])
def test_no_target_is_special_and_one_outside_the_vocabulary_is_an_index_error(cross_entropy_backward, outside):
    with pytest.raises(IndexError):
        cross_entropy_backward(tensor(1.0), tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), tensor([2, outside]))


@pytest.mark.refusal
@pytest.mark.parametrize("outside", [3, -1, -100])
def test_a_target_outside_the_vocabulary_is_refused(cross_entropy_backward, outside):
    with pytest.raises(IndexError, match=f"cross_entropy_backward: targets must lie in 0..2, got {outside}"):
        cross_entropy_backward(torch.tensor(1.0), torch.ones(2, 3), torch.tensor([2, outside]))


@pytest.mark.refusal
def test_no_token_at_all_is_refused(cross_entropy_backward):
    sentence = r"cross_entropy_backward: there must be at least one token, got targets \[2, 0\]"
    with pytest.raises(ValueError, match=sentence):
        cross_entropy_backward(torch.tensor(1.0), torch.ones(2, 0, 3), torch.ones(2, 0, dtype=torch.int64))


@pytest.mark.refusal
def test_a_gradient_for_each_token_is_refused(cross_entropy_backward):
    # The loss is one number, and so is its gradient.
    with pytest.raises(ValueError, match=r"cross_entropy_backward: grad must be \[\], got \[2\]"):
        cross_entropy_backward(torch.ones(2), torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))


@pytest.mark.refusal
def test_targets_of_another_shape_are_refused(cross_entropy_backward):
    sentence = r"cross_entropy_backward: targets must be \[\.\.\.\] with \.\.\.=\(2, 3\), got \[3, 2\]"
    with pytest.raises(ValueError, match=sentence):
        cross_entropy_backward(torch.tensor(1.0), torch.ones(2, 3, 5), torch.zeros(3, 2, dtype=torch.int64))
