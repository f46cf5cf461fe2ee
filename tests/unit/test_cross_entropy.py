"""Cross-entropy: how surprised the model is by what really came next, in nats."""

import math

import pytest
import torch

from tests.assertions import assert_close
from tests.strategies import tensor


def test_the_loss_is_minus_the_logarithm_of_the_targets_probability(cross_entropy):
    # Logits ln 1, ln 2, ln 5 mean probabilities 1/8, 2/8, 5/8.
    logits = tensor([[0.0, math.log(2), math.log(5)]])
    assert_close(cross_entropy(logits, tensor([1])), tensor(math.log(4)))


def test_logits_come_in_and_not_probabilities(cross_entropy):
    # As probabilities 1 and 0 the right answer would cost nothing; as logits it costs ln(1 + 1/e).
    assert_close(cross_entropy(tensor([[1.0, 0.0]]), tensor([0])), tensor(math.log(1 + math.exp(-1))))


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(cross_entropy):
    assert_close(cross_entropy(tensor([[3.0] * 5]), tensor([4])), tensor(math.log(5)))


def test_the_loss_is_the_mean_over_all_tokens(cross_entropy):
    # ln 4 and ln(4/3), whichever axes they stand in.
    logits = tensor([[[0.0, math.log(3)]], [[0.0, math.log(3)]]])
    assert_close(cross_entropy(logits, tensor([[0], [1]])), tensor((math.log(4) + math.log(4 / 3)) / 2))


def test_a_sure_right_answer_costs_nothing(cross_entropy):
    assert_close(cross_entropy(tensor([[1e4, 0.0]]), tensor([0])), tensor(0.0))


def test_a_sure_wrong_answer_costs_the_gap_however_large(cross_entropy):
    assert_close(cross_entropy(tensor([[1e4, 0.0]]), tensor([1])), tensor(1e4), "log(softmax(x)) is log(0) here")


def test_one_token_without_leading_axes_will_do(cross_entropy):
    assert_close(cross_entropy(tensor([0.0, 0.0]), tensor(1)), tensor(math.log(2)))


@pytest.mark.refusal
@pytest.mark.parametrize("target", [-1, 3, -100])
def test_a_target_outside_the_vocabulary_is_an_index_error(cross_entropy, target):
    with pytest.raises(IndexError, match=rf"cross_entropy: targets must lie in 0..2, got {target}"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, target]))


@pytest.mark.refusal
def test_no_tokens_have_no_mean(cross_entropy):
    with pytest.raises(ValueError, match=r"cross_entropy: there must be at least one token, got targets \[0\]"):
        cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@pytest.mark.refusal
def test_targets_of_another_shape_are_refused(cross_entropy):
    with pytest.raises(ValueError, match=r"cross_entropy: targets must be \[...\] with ...=\(2, 4\), got \[2, 5\]"):
        cross_entropy(torch.zeros(2, 4, 3), torch.zeros(2, 5, dtype=torch.int64))
