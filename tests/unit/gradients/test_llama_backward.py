"""The gradient of Llama: the loss, and how it changes with every weight."""

import math

import pytest
import torch

from tests.cases.on_paper import ONE, config, model
from tests.cases.target import tensor
from tests.judge.assertions import assert_close

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
LOG2 = math.log(2)
CERTAIN = [[0.0, 0.0], [0.0, 0.0], [LOG2, 0.0]]
"""A head that scores the norm (1, 1) by 0, 0 and ln 2: probabilities 1/4, 1/4 and 1/2."""


def w_o(layer):
    return f"model.layers.{layer}.self_attn.o_proj.weight"


def test_the_loss_is_the_cross_entropy_of_the_logits(llama_backward):
    # Token 1 is (1, 1), and so is its norm. The target 2 has the probability 1/2, and 0 has 1/4.
    loss, _ = llama_backward(tensor([[1]]), tensor([[2]]), model(head=CERTAIN), config())
    assert_close(loss, tensor(LOG2), "the loss comes first")
    loss, _ = llama_backward(tensor([[1, 1]]), tensor([[2, 0]]), model(head=CERTAIN), config())
    assert_close(loss, tensor(1.5 * LOG2), "the mean over the tokens, and targets that are not shifted")


def test_the_head_gets_probabilities_less_one_for_the_target_times_the_norm(llama_backward):
    _, gradients = llama_backward(tensor([[1]]), tensor([[2]]), model(head=CERTAIN), config())
    assert_close(gradients[HEAD], tensor([[0.25, 0.25], [0.25, 0.25], [-0.5, -0.5]]))


def test_what_comes_back_from_the_head_goes_through_the_last_norm_to_the_row_of_the_token(llama_backward):
    # The norm gets -1/2 · (ln 2, 0), of which (-ln 2 / 4, ln 2 / 4) goes across (1, 1). The layer passes it on.
    _, gradients = llama_backward(tensor([[1]]), tensor([[2]]), model(head=CERTAIN), config())
    assert_close(gradients[NORM], tensor([-LOG2 / 2, 0.0]), "model.norm, before the head")
    expected = tensor([[0.0, 0.0], [-LOG2 / 4, LOG2 / 4], [0.0, 0.0]])
    assert_close(gradients[EMBEDDING], expected, "the rows of the tokens that were read, and no others")


def test_the_last_norm_counts_with_its_weight_and_with_the_length_of_x(llama_backward):
    # (2, 5) scales the norm (1, 1) of x = (3, 3), so a head of (ln 2 / 2, 0) scores as before and gets (2, 5) times as
    # much. The norm gets -1/2 · (ln 2 / 2, 0), and x gets twice that, across (1, 1), over 3.
    weights = model(norm=(2.0, 5.0), embedding=[*ONE, [3.0, 3.0]], head=[[0.0, 0.0], [0.0, 0.0], [LOG2 / 2, 0.0]])
    _, gradients = llama_backward(tensor([[2]]), tensor([[2]]), weights, config())
    assert_close(gradients[HEAD], tensor([[0.5, 1.25], [0.5, 1.25], [-1.0, -2.5]]))
    assert_close(gradients[NORM], tensor([-LOG2 / 4, 0.0]))
    assert_close(gradients[EMBEDDING][2], tensor([-LOG2 / 12, LOG2 / 12]))


def test_the_gradients_of_many_tokens_are_their_mean(llama_backward):
    # Token 1 with target 2, six times: the gradients are those of once.
    once, many = (tensor([[i]]).expand(rows, seq) for i, rows, seq in ((1, 1, 1), (1, 2, 3)))
    weights = model(head=CERTAIN)
    expected = llama_backward(once, once + 1, weights, config())
    actual = llama_backward(many, many + 1, weights, config())
    assert_close(actual, expected, "1 / tokens, over batch and seq: the mean is in the loss")
    assert_close(actual[1][EMBEDDING][1], tensor([-LOG2 / 4, LOG2 / 4]), "a token that comes again adds to its row")


def test_where_the_head_is_tied_both_gradients_of_the_embedding_add_up(llama_backward):
    # The rows (1, 1), (1, 1) and (2 + ln 2, 0) score the norm (1, 1) by 2, 2 and 2 + ln 2: probabilities as above. So
    # as a head the rows get as much as above. The norm gets 1/4 · (2, 2) - 1/2 · (2 + ln 2, 0) = (-0.846574, 0.5), and
    # across (1, 1) that is (-0.673287, 0.673287), for row 0.
    weights = model(embedding=((1.0, 1.0), (1.0, 1.0), (2 + LOG2, 0.0)))
    loss, gradients = llama_backward(tensor([[0]]), tensor([[2]]), weights, config())
    assert_close(loss, tensor(LOG2))
    expected = tensor([[0.25 - 0.673287, 0.25 + 0.673287], [0.25, 0.25], [-0.5, -0.5]])
    assert_close(gradients[EMBEDDING], expected, "the tied head: what it gets and what the rows get, together")


def test_each_layer_gets_what_comes_back_from_the_one_after_it(llama_backward):
    # Layer 0 adds nothing, layer 1 adds the norm of its x = (1, 1). The last norm reads (2, 2), and gives
    # (-ln 2 / 8, ln 2 / 8) back. Layer 1 adds as much once more for its branch.
    half = LOG2 / 8
    weights = model({"v": [[3.0, 0.0], [0.0, 3.0]]}, {"v": ONE, "o": ONE}, head=CERTAIN)
    _, gradients = llama_backward(tensor([[1]]), tensor([[2]]), weights, config(n_layers=2))
    # Attention of token 1 alone makes (3, 3) in layer 0 and (1, 1) in layer 1, which w_o is multiplied by.
    assert_close(gradients[w_o(1)], tensor([[-half, -half], [half, half]]), "the last layer gets it first")
    assert_close(gradients[w_o(0)], tensor([[-6 * half, -6 * half], [6 * half, 6 * half]]), "from layer to layer")
    assert_close(gradients[EMBEDDING][1], tensor([-2 * half, 2 * half]), "the embedding gets what is left in the end")


def test_eps_is_that_of_the_config(llama_backward):
    # 1 / sqrt(1 + 3) = 0.5, so a head of 2 ln 2 scores as before and gets half as much. The norm gets (-ln 2, 0), of
    # which 0.25 · -ln 2 / 2 is taken away along (1, 1), and x gets half of that.
    head = [[0.0, 0.0], [0.0, 0.0], [2 * LOG2, 0.0]]
    _, gradients = llama_backward(tensor([[1]]), tensor([[2]]), model(head=head), config(rms_norm_eps=3.0))
    assert_close(gradients[HEAD], tensor([[0.125, 0.125], [0.125, 0.125], [-0.25, -0.25]]), "rms_norm_eps")
    assert_close(gradients[EMBEDDING][1], tensor([-7 / 16 * LOG2, LOG2 / 16]), "rms_norm_eps")


def test_the_row_of_id_0_learns_as_all_others_do(llama_backward):
    weights = model(embedding=((1.0, 1.0), (3.0, 4.0), (1.0, -1.0)), head=CERTAIN)
    _, gradients = llama_backward(tensor([[0]]), tensor([[2]]), weights, config())
    assert_close(gradients[EMBEDDING][0], tensor([-LOG2 / 4, LOG2 / 4]), "no id is padding")


def test_the_gradients_are_found_under_the_names_of_their_weights(llama_backward):
    turned = dict(reversed(model(head=CERTAIN).items()))
    _, gradients = llama_backward(tensor([[1]]), tensor([[2]]), turned, config())
    assert_close(gradients[NORM], tensor([-LOG2 / 2, 0.0]), "weights are read by name, in whatever order they are")


def test_a_step_against_the_gradient_makes_the_loss_smaller(llama_backward, plot):
    words, sentence = ("the", "cat", "sat"), tensor([[0, 1, 2, 0, 1]])
    weights = model({"q": ONE, "k": ONE, "v": ONE, "o": [[0.1, 0.0], [0.0, 0.1]]})
    losses, rows = [], []
    for _ in range(30):
        loss, gradients = llama_backward(sentence[:, :-1], sentence[:, 1:], weights, config())
        losses.append(loss)
        rows.append(weights[EMBEDDING])
        weights = {name: w - 0.05 * gradients[name] for name, w in weights.items()}
    plot(range(30), {"loss": torch.stack(losses)}, "o-", xlabel="step", ylim=(0, None))
    paths = {word: torch.stack(rows)[:, i].T for i, word in enumerate(words)}
    plot(None, paths, "o-", title="the embeddings on their way", xlabel="feature 0", ylabel="feature 1")
    assert (torch.stack(losses).diff() < 0).all()


@pytest.mark.refusal
def test_a_missing_weight_is_named(llama_backward):
    weights = model()
    del weights[NORM]
    with pytest.raises(ValueError, match=r"llama_backward: weights lacks model\.norm\.weight$"):
        llama_backward(tensor([[1]]), tensor([[2]]), weights, config())


@pytest.mark.refusal
def test_a_layer_too_many_is_refused(llama_backward):
    sentence = r"llama_backward: weights has no use for model\.layers\.1\.input_layernorm\.weight, "
    with pytest.raises(ValueError, match=sentence):
        llama_backward(tensor([[1]]), tensor([[2]]), model({}, {}), config(n_layers=1))


@pytest.mark.parametrize("outside", [-1, 3, -100])
def test_an_id_outside_the_vocabulary_is_an_index_error(llama_backward, outside):
    with pytest.raises(IndexError):
        llama_backward(tensor([[1, outside]]), tensor([[2, 2]]), model(), config())


@pytest.mark.parametrize("outside", [-1, 3, -100])
def test_a_target_outside_the_vocabulary_is_an_index_error_and_none_is_left_out(llama_backward, outside):
    with pytest.raises(IndexError):
        llama_backward(tensor([[1, 1]]), tensor([[2, outside]]), model(), config())


@pytest.mark.refusal
def test_no_tokens_are_refused(llama_backward):
    none = tensor([[1]])[:, :0]
    with pytest.raises(ValueError, match="cross_entropy"):
        llama_backward(none, none, model(), config())


@pytest.mark.refusal
def test_targets_of_another_shape_are_refused(llama_backward):
    sentence = r"llama_backward: targets must be \[batch seq\] with .*seq=2.*, got \[1, 1\]"
    with pytest.raises(ValueError, match=sentence):
        llama_backward(tensor([[1, 2]]), tensor([[2]]), model(), config())
