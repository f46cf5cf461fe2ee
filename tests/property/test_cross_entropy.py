"""What defines cross-entropy, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.assertions import assert_close
from tests.strategies import cases


@given(case=cases("batch seq vocab"))
def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(cross_entropy, case):
    logits = case.normal("batch seq 1").expand(-1, -1, case.vocab)
    loss = cross_entropy(logits, case.integers("batch seq", case.vocab))
    assert_close(loss, torch.full_like(loss, math.log(case.vocab)))


@given(case=cases("batch seq vocab"), constant=st.integers(-64, 64))
def test_adding_a_constant_to_all_logits_of_a_token_changes_nothing(cross_entropy, case, constant):
    # Sixteenths, so that adding a whole number rounds nothing away.
    logits, targets = case.integers("batch seq vocab", 64).to(case.dtype) / 16, case.integers("batch seq", case.vocab)
    assert_close(cross_entropy(logits + constant, targets), cross_entropy(logits, targets))


@given(case=cases("batch seq vocab"))
def test_the_loss_is_never_negative(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab", 30.0), case.integers("batch seq", case.vocab)
    assert cross_entropy(logits, targets) >= 0


@given(case=cases("batch seq vocab", vocab=(2, 13)), gap=st.sampled_from([50.0, 1e3, 1e5]))
def test_a_sure_answer_costs_nothing_if_right_and_the_gap_if_wrong(cross_entropy, case, gap):
    targets = case.integers("batch seq", case.vocab)
    logits = gap * torch.nn.functional.one_hot(targets, case.vocab).to(case.dtype)
    right = cross_entropy(logits, targets)
    assert_close(right, torch.zeros_like(right))
    wrong = cross_entropy(logits, (targets + 1) % case.vocab)
    assert_close(wrong, torch.full_like(wrong, gap))


@given(case=cases("batch seq vocab"))
def test_the_leading_shape_does_not_matter(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab"), case.integers("batch seq", case.vocab)
    assert_close(cross_entropy(logits.flatten(0, 1), targets.flatten()), cross_entropy(logits, targets))


@given(case=cases("batch seq vocab"))
def test_the_loss_is_the_mean_of_the_losses_of_single_tokens(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab"), case.integers("batch seq", case.vocab)
    single = [cross_entropy(logits[b, t], targets[b, t]) for b in range(case.batch) for t in range(case.seq)]
    assert_close(cross_entropy(logits, targets), torch.stack(single).mean())


@pytest.mark.tensors
@given(case=cases("batch seq vocab"))
def test_the_gradient_is_softmax_minus_one_hot_over_the_number_of_tokens(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab").requires_grad_(), case.integers("batch seq", case.vocab)
    cross_entropy(logits, targets).backward()
    one_hot = torch.nn.functional.one_hot(targets, case.vocab)
    assert_close(logits.grad, (logits.detach().softmax(dim=-1) - one_hot) / targets.numel())
