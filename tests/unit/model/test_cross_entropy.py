"""Cross-entropy: the mean, over all tokens, of -ln of the probability that the logits gave the right one."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_a_token_costs_minus_the_logarithm_of_its_probability(cross_entropy):
    # The powers are 1 and 3: token 1 has probability 3/4, and -ln(3/4) = 0.287682.
    assert_close(cross_entropy(tensor([[0.0, math.log(3)]]), tensor([1])), tensor(0.287682))


def test_the_target_chooses_which_token_it_is(cross_entropy):
    # Probability 1/4: -ln(1/4) = 1.386294.
    assert_close(cross_entropy(tensor([[0.0, math.log(3)]]), tensor([0])), tensor(1.386294))


def test_not_knowing_among_eight_costs_ln_8_nats(cross_entropy):
    # 2.079442 nats; in bits it would be 3.
    assert_close(cross_entropy(tensor([[5.0] * 8]), tensor([6])), tensor(2.079442), "the logarithm is natural")


def test_the_loss_is_the_mean_over_the_tokens(cross_entropy):
    # (1.386294 + 0.287682 + 0.287682) / 3; the sum would be 1.961659.
    logits = tensor([[0.0, math.log(3)]] * 3)
    assert_close(cross_entropy(logits, tensor([0, 1, 1])), tensor(0.653886), "the mean over tokens, with all of them")


def test_the_mean_is_over_the_batch_too(cross_entropy):
    # (1.386294 + 3 · 0.287682) / 4, where the mean over one axis alone leaves a factor of 2.
    logits = tensor([[[0.0, math.log(3)], [math.log(3), 0.0]]] * 2)
    assert_close(cross_entropy(logits, tensor([[0, 0], [1, 0]])), tensor(0.562335), "one mean over all leading axes")


def test_each_position_is_judged_by_the_target_at_the_same_place(cross_entropy):
    # Nothing is shifted in here: the targets are the next tokens already.
    logits = tensor([[[20.0, 0.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 20.0]]])
    assert_close(cross_entropy(logits, tensor([[0, 1, 2]])), tensor(0.0), "a shift: it belongs to the data")


def test_a_single_token_needs_no_leading_axis(cross_entropy):
    assert_close(cross_entropy(tensor([0.0, math.log(3)]), tensor(1)), tensor(0.287682))


def test_numbers_that_look_like_probabilities_are_logits_too(cross_entropy):
    # Logits 3/4 and 1/4 are half apart: ln(1 + e^-0.5) = 0.474077. As probabilities they would cost -ln(3/4).
    assert_close(cross_entropy(tensor([[0.75, 0.25]]), tensor([0])), tensor(0.474077), "logits come in")


def test_a_sure_right_answer_costs_nothing(cross_entropy):
    assert_close(cross_entropy(tensor([[0.0, 10000.0, 0.0]]), tensor([1])), tensor(0.0))


def test_a_sure_wrong_answer_costs_the_gap(cross_entropy):
    # Its probability e^-10000 is 0 in any float, and ln(0) is no loss.
    look_at = "the logarithm of a softmax: take the largest logit out of the sum and keep the rest as logits"
    assert_close(cross_entropy(tensor([[0.0, 10000.0, 0.0]]), tensor([2])), tensor(10000.0), look_at)


def test_each_token_has_a_largest_logit_of_its_own(cross_entropy):
    logits = tensor([[1000.0, 0.0], [-2000.0, -1000.0]])
    assert_close(cross_entropy(logits, tensor([0, 1])), tensor(0.0), "the largest logit: it is the token's own")


def test_an_impossible_token_costs_nothing_where_it_is_wrong(cross_entropy):
    assert_close(cross_entropy(tensor([[0.0, -math.inf, 0.0]]), tensor([0])), tensor(0.693147))


@pytest.mark.tensors
def test_the_gradient_is_the_probability_less_one_for_the_target(cross_entropy):
    # Two tokens, so half of (1/4, 3/4 - 1) and of (3/4 - 1, 1/4).
    logits = tensor([[0.0, math.log(3)], [math.log(3), 0.0]]).requires_grad_()
    cross_entropy(logits, tensor([1, 0])).backward()
    assert_close(logits.grad, tensor([[0.125, -0.125], [-0.125, 0.125]]))


def test_losses_that_float16_can_hold_are_not_added_up_in_it(cross_entropy):
    # Each gap is 60,000 and so is their mean, but their sum is beyond float16's largest, 65,504.
    logits = tensor([[3e4, -3e4]] * 3, torch.float16)
    assert_close(cross_entropy(logits, tensor([1, 1, 1])), tensor(6e4, torch.float16), "sum in float32")


def test_a_token_costs_more_the_less_likely_it_was(cross_entropy, plot):
    probability = torch.linspace(0.02, 0.98, 49)
    cost = [cross_entropy(tensor([[math.log(p), math.log(1 - p)]]), tensor([0])) for p in probability.tolist()]
    # Lines to what guessing among 2, 8 and 32 tokens costs.
    guesses = {f"_{n}": torch.tensor([[1 / n, 1 / n, 0.0], [0.0, math.log(n), math.log(n)]]) for n in (2, 8, 32)}
    x_axis = {
        "xlabel": "its probability",
        "xticks": [1 / 32, 1 / 8, 1 / 2, 1],
        "xticklabels": ["1/32", "1/8", "1/2", "1"],
    }
    y_axis = {"yticks": [0, *(math.log(n) for n in (2, 8, 32))], "yticklabels": ["0", "ln 2", "ln 8", "ln 32"]}
    lines = guesses | {"cost of the right token, in nats": torch.stack(cost)}
    plot(probability, lines, **x_axis, **y_axis, xlim=(0, 1.02), ylim=(0, 4))
    assert_close(torch.stack(cost), tensor((-probability.double().log()).tolist()).float())


@pytest.mark.parametrize("outside", [3, -1, -100])
def test_no_target_is_special_and_one_outside_the_vocabulary_is_an_index_error(cross_entropy, outside):
    with pytest.raises(IndexError):
        cross_entropy(tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), tensor([2, outside]))


@pytest.mark.refusal
@pytest.mark.parametrize("outside", [3, -1, -100])
def test_a_target_outside_the_vocabulary_is_refused(cross_entropy, outside):
    with pytest.raises(IndexError, match=f"cross_entropy: targets must lie in 0..2, got {outside}"):
        cross_entropy(torch.ones(2, 3), torch.tensor([2, outside]))


@pytest.mark.refusal
def test_no_token_at_all_is_refused(cross_entropy):
    with pytest.raises(ValueError, match=r"cross_entropy: there must be at least one token, got targets \[2, 0\]"):
        cross_entropy(torch.ones(2, 0, 3), torch.ones(2, 0, dtype=torch.int64))


@pytest.mark.refusal
def test_targets_of_another_shape_are_refused(cross_entropy):
    sentence = r"cross_entropy: targets must be \[\.\.\.\] with \.\.\.=\(2, 3\), got \[3, 2\]"
    with pytest.raises(ValueError, match=sentence):
        cross_entropy(torch.ones(2, 3, 5), torch.zeros(3, 2, dtype=torch.int64))


@pytest.mark.refusal
def test_probabilities_as_targets_are_refused(cross_entropy):
    with pytest.raises(ValueError, match="cross_entropy: targets must be int64, got float64"):
        cross_entropy(torch.ones(2, 3), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("tokens", [129, 1025, 4097])
def test_every_token_weighs_the_same_however_many_there_are(cross_entropy, tokens):
    # All right answers at no cost but the last one, which costs 1000: a mean of means of chunks would weigh it more.
    targets = tensor([[0] * (tokens - 1) + [1]])
    logits = tensor([[1000.0, 0.0]]).expand(1, tokens, 2)
    assert_close(
        cross_entropy(logits, targets), tensor(1000.0 / tokens), "one mean over all tokens, the last chunk too"
    )
