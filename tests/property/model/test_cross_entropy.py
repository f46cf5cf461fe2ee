"""What defines cross-entropy, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import Case, cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_finite
from tests.judge.gradients import vjp
from tests.judge.subject import FORMULA


def one_hot(case, ids):
    return (ids[..., None] == tensor(range(case.vocab))).to(case.dtype)


LARGEST = "what is taken out of the sum first: it is the largest logit of the token itself"


def far(case):
    """10000 or -10000 for each token, which changes nothing."""
    return 1e4 * case.normal("batch seq 1").sign()


@given(case=cases("batch seq vocab"))
def test_uniform_logits_cost_ln_vocab(cross_entropy, case):
    logits = case.uniform("batch seq 1", -20, 20).repeat(1, 1, case.vocab)
    loss = cross_entropy(logits, case.integers("batch seq", case.vocab))
    assert_close(loss, tensor(math.log(case.vocab), case.dtype))


@given(case=cases("batch seq vocab"))
def test_adding_a_constant_to_the_logits_of_a_token_changes_nothing(cross_entropy, case):
    # Multiples of 1/4 and whole numbers, so that the sum is not rounded.
    logits, targets = case.integers("batch seq vocab", 40).to(case.dtype) / 4, case.integers("batch seq", case.vocab)
    constant = case.uniform("batch seq 1", -20, 20).round()
    assert_close(cross_entropy(logits + constant, targets), cross_entropy(logits, targets))


@given(case=cases("batch seq vocab"), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_loss_is_never_negative(cross_entropy, case, scale):
    logits = case.normal("batch seq vocab", scale)
    loss = cross_entropy(logits, logits.argmax(dim=-1))
    assert_close(loss.clamp(max=0), torch.zeros_like(loss))


@pytest.mark.exact
@given(case=cases("batch seq vocab"), gap=st.sampled_from([100.0, 1e4, 1e30]))
def test_sure_right_answers_cost_nothing(cross_entropy, case, gap):
    targets = case.integers("batch seq", case.vocab)
    logits = gap * one_hot(case, targets) + far(case)
    assert_close(cross_entropy(logits, targets), tensor(0.0, case.dtype), LARGEST)


@pytest.mark.exact
@given(case=cases("batch seq vocab", vocab=(2, 13)), gap=st.sampled_from([100.0, 1e4, 1e30]))
def test_sure_wrong_answers_cost_the_gap(cross_entropy, case, gap):
    targets = case.integers("batch seq", case.vocab)
    logits = gap * one_hot(case, (targets + 1) % case.vocab) + far(case)
    assert_close(cross_entropy(logits, targets), tensor(gap, case.dtype), LARGEST)


@given(case=cases("batch seq vocab"))
def test_the_loss_is_the_mean_of_what_each_token_costs_alone(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab)
    flat = zip(logits.reshape(-1, 1, case.vocab), targets.reshape(-1, 1), strict=True)
    alone = torch.stack([cross_entropy(token, target) for token, target in flat])
    assert_close(cross_entropy(logits, targets), alone.mean(), "one mean over all tokens, the last one too")


@given(case=cases("batch seq vocab"))
def test_logarithms_of_probabilities_are_logits_that_cost_just_those(cross_entropy, case):
    powers, targets = case.uniform("batch seq vocab", 0.1, 1.0), case.integers("batch seq", case.vocab)
    logarithms = (powers / powers.sum(dim=-1, keepdim=True)).log()
    assert_close(cross_entropy(logarithms, targets), -logarithms.gather(-1, targets[..., None]).mean())


@given(case=cases("batch seq vocab"))
def test_no_token_of_the_vocabulary_is_special(cross_entropy, case):
    # Renaming the tokens changes nothing. It would if id 0 were left out as padding.
    logits, targets = case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab)
    order = case.permutation(case.vocab)
    assert_close(cross_entropy(logits[..., order], order.argsort()[targets]), cross_entropy(logits, targets))


@given(case=cases("batch seq vocab"))
def test_an_impossible_token_changes_nothing_where_it_is_wrong(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab)
    one_more = torch.cat((logits, torch.full_like(logits[..., :1], -math.inf)), dim=-1)
    assert_close(cross_entropy(one_more, targets), cross_entropy(logits, targets), "0 · inf")


@pytest.mark.tensors
@given(case=cases("batch seq vocab"))
def test_the_gradient_is_softmax_less_one_hot_over_the_number_of_tokens(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab").requires_grad_(), case.integers("batch seq", case.vocab)
    cross_entropy(logits, targets).backward()
    powers = logits.detach().exp()
    expected = powers / powers.sum(dim=-1, keepdim=True) - one_hot(case, targets)
    assert_close(logits.grad * case.batch * case.seq, expected)


@pytest.mark.tensors
@given(case=cases("batch seq vocab", vocab=(2, 13)))
def test_a_sure_wrong_answer_is_pushed_the_right_way(cross_entropy, case):
    # Where the probability of the target is 0 in any float, the gradient is still -1 for it and 1 for the other.
    targets = case.integers("batch seq", case.vocab)
    wrong = one_hot(case, (targets + 1) % case.vocab)
    logits = (1e4 * wrong).requires_grad_()
    cross_entropy(logits, targets).backward()
    assert_close(logits.grad * case.batch * case.seq, wrong - one_hot(case, targets), "a logarithm of 0, or a clamp")


@pytest.mark.tensors
@given(case=cases("batch seq vocab", vocab=(2, 13)))
def test_gradients_are_finite_beside_impossible_tokens(cross_entropy, case):
    logits, targets = case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab)
    impossible = one_hot(case, (targets + 1) % case.vocab).bool()
    logits = logits.masked_fill(impossible, -math.inf).requires_grad_()
    cross_entropy(logits, targets).backward()
    assert_finite(logits.grad)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_many_tokens_have_the_loss_and_the_gradient_of_the_formula(cross_entropy, dtype):
    # More logits than fit into a cache. The gradient is sent back large, as loss scaling does, so that float16 keeps
    # what is small in it.
    case = Case({"tokens": 600, "vocab": 1000}, dtype, seed=0)
    logits, targets = case.normal("tokens vocab").requires_grad_(), case.integers("tokens", 1000)
    exact = logits.detach().double().requires_grad_()
    loss, right = cross_entropy(logits, targets), FORMULA.cross_entropy(exact, targets)
    assert_close(loss.detach(), right.detach(), dtype=dtype)
    (gradient,) = vjp(loss, [logits], loss.new_tensor(600.0))
    (expected,) = vjp(right, [exact], right.new_tensor(600.0))
    assert_close(gradient, expected, dtype=dtype)


@pytest.mark.tensors
def test_the_gradient_of_unlikely_tokens_survives_in_float16(cross_entropy):
    # 1/67 of each of 16,384 tokens is 1e-6, where float16 is no longer exact; times the upstream gradient it is.
    logits = torch.zeros(16_384, 67, dtype=torch.float16, device=target.DEVICE, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(16_384, dtype=torch.int64, device=target.DEVICE))
    (gradient,) = vjp(loss, [logits], loss.new_tensor(16_384.0))
    look_at = "a gradient that is rounded before it meets the upstream gradient"
    assert_close(67 * gradient[:, 1:], torch.ones_like(gradient[:, 1:]), look_at)
