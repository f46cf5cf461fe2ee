"""What defines the gradient of cross-entropy, whatever the sizes. That it is the derivative is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical, fail

SIZES = "batch seq vocab"


def one_hot(case, ids):
    return (ids[..., None] == tensor(range(case.vocab))).to(case.dtype)


def one(case):
    """The gradient of a loss that nothing comes after."""
    return tensor(1.0, case.dtype)


def tokens(case):
    """As large as the tokens are many, so that no token's part is small."""
    return tensor(float(case.batch * case.seq), case.dtype)


@given(case=cases(SIZES))
def test_what_the_logits_of_a_token_gain_and_lose_cancels(cross_entropy_backward, case):
    # As adding a constant to all of them changes nothing.
    logits, targets = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab)
    sums = cross_entropy_backward(tokens(case), logits, targets).sum(dim=-1)
    assert_close(sums, torch.zeros_like(sums), "one-hot takes 1 from probabilities that sum to 1")


@given(case=cases(SIZES))
def test_with_one_added_at_the_target_it_is_a_distribution(cross_entropy_backward, case):
    powers, targets = case.uniform(SIZES, 0.1, 1.0), case.integers("batch seq", case.vocab)
    probabilities = powers / powers.sum(dim=-1, keepdim=True)
    grad_logits = cross_entropy_backward(tokens(case), probabilities.log(), targets)
    assert_close(grad_logits + one_hot(case, targets), probabilities, "softmax of the logits")


@given(case=cases(SIZES, target.ALL, vocab=(2, 13)))
def test_the_target_is_pulled_up_and_every_other_token_pushed_down(cross_entropy_backward, case):
    # Logits so near each other that no probability is rounded to 0 or to 1.
    logits, targets = case.uniform(SIZES, -1.0, 1.0), case.integers("batch seq", case.vocab)
    rising = cross_entropy_backward(tokens(case), logits, targets) < 0
    if not torch.equal(rising, one_hot(case, targets).bool()):
        fail("a target's entry is not negative, or another one's is not positive", "the sign, and one-hot")


@given(case=cases(SIZES))
def test_the_share_of_a_token_depends_on_how_many_there_are_and_not_on_their_axes(cross_entropy_backward, case):
    logits, targets = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab)
    grad_logits = cross_entropy_backward(one(case), logits, targets)
    in_a_row = cross_entropy_backward(one(case), logits.flatten(0, 1), targets.flatten())
    assert_close(in_a_row, grad_logits.flatten(0, 1), "1 / tokens, of all leading axes")


@given(case=cases(SIZES))
def test_of_a_text_that_stands_there_twice_each_token_has_half(cross_entropy_backward, case):
    logits, targets = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab)
    once = cross_entropy_backward(tokens(case), logits, targets)
    twice = cross_entropy_backward(tokens(case), torch.cat((logits, logits)), torch.cat((targets, targets)))
    assert_close(2 * twice, torch.cat((once, once)), "1 / tokens")


@given(case=cases(SIZES, vocab=(1, 1)))
def test_where_there_is_one_token_only_there_is_nothing_to_learn(cross_entropy_backward, case):
    grad_logits = cross_entropy_backward(tokens(case), case.normal(SIZES, 3.0), case.integers("batch seq", 1))
    assert_close(grad_logits, torch.zeros_like(grad_logits))


@given(case=cases(SIZES))
def test_adding_a_constant_to_the_logits_of_a_token_changes_nothing(cross_entropy_backward, case):
    # Multiples of 1/4 and whole numbers, so that the sum is not rounded.
    logits, targets = case.integers(SIZES, 40).to(case.dtype) / 4, case.integers("batch seq", case.vocab)
    constant = case.uniform("batch seq 1", -20, 20).round()
    before = cross_entropy_backward(tokens(case), logits, targets)
    assert_close(cross_entropy_backward(tokens(case), logits + constant, targets), before)


@pytest.mark.exact
@given(case=cases(SIZES, vocab=(2, 13)), gap=st.sampled_from([100.0, 1e4, 1e30]))
def test_a_gap_of_any_size_pushes_with_one_and_no_more(cross_entropy_backward, case, gap):
    targets, far = case.integers("batch seq", case.vocab), 1e4 * case.normal("batch seq 1").sign()
    wrong = one_hot(case, (targets + 1) % case.vocab)
    grad_logits = cross_entropy_backward(tokens(case), gap * wrong + far, targets)
    assert_close(grad_logits, wrong - one_hot(case, targets), "the largest logit of the token itself, taken out first")


@given(case=cases(SIZES))
def test_no_token_of_the_vocabulary_is_special(cross_entropy_backward, case):
    # Renaming the tokens renames their gradients. It would not if id 0 were left out as padding.
    logits, targets = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab)
    order = case.permutation(case.vocab)
    renamed = cross_entropy_backward(tokens(case), logits[..., order], order.argsort()[targets])
    assert_close(renamed, cross_entropy_backward(tokens(case), logits, targets)[..., order])


@given(case=cases(SIZES))
def test_an_impossible_token_gets_exactly_zero_and_changes_nothing_for_the_others(cross_entropy_backward, case):
    logits, targets = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab)
    one_more = torch.cat((logits, torch.full_like(logits[..., :1], -math.inf)), dim=-1)
    grad_logits = cross_entropy_backward(tokens(case), one_more, targets)
    assert_identical(grad_logits[..., -1], torch.zeros_like(grad_logits[..., -1]))
    assert_close(grad_logits[..., :-1], cross_entropy_backward(tokens(case), logits, targets), "0 · inf")


@given(case=cases(SIZES, seq=(2, 7)))
def test_no_other_token_has_any_influence(cross_entropy_backward, case):
    logits, targets, token = case.normal(SIZES, 3.0), case.integers("batch seq", case.vocab), case.seed % case.seq
    changed, of_others = logits.clone(), targets.clone()
    changed[:, token], of_others[:, token] = case.normal("batch vocab", 1e3), case.integers("batch", case.vocab)
    others = [i for i in range(case.seq) if i != token]
    before, after = (cross_entropy_backward(one(case), *of) for of in ((logits, targets), (changed, of_others)))
    assert_identical(after[:, others], before[:, others], "the axis of the sum, and whose target is taken")
