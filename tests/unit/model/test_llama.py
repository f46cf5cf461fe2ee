"""Llama: embed the tokens, pass them through the decoder layers in turn, norm, and score every token."""

import math
from dataclasses import replace

import pytest
import torch

from tests.cases.on_paper import ONE, config, model
from tests.cases.target import tensor
from tests.judge.assertions import assert_close

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 4,
}


def test_without_a_head_each_token_is_scored_by_its_embedding(llama):
    # The norms of 1, 1 and of 1, -1 are themselves; times 3, 4 and 1, 1 and 1, -1.
    logits = llama(tensor([[1, 2]]), model(), config())
    assert_close(logits, tensor([[[7.0, 2.0, 0.0], [-1.0, 0.0, 2.0]]]), "the tied head: embed_tokens itself")


def test_with_a_head_each_token_is_scored_by_its_row(llama):
    logits = llama(tensor([[1, 2]]), model(head=[[1.0, 0.0], [0.0, 1.0], [10.0, 1.0]]), config())
    assert_close(logits, tensor([[[1.0, 1.0, 11.0], [1.0, -1.0, 9.0]]]), "lm_head.weight, where there is one")


def test_the_last_norm_comes_before_the_head(llama):
    # 3, 4 over its root mean square sqrt(12.5).
    logits = llama(tensor([[0]]), model(head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), config())
    assert_close(logits, tensor([[[0.848528, 1.131371, 0.0]]]), "model.norm")


def test_the_last_norm_has_a_weight(llama):
    logits = llama(tensor([[1]]), model(norm=(2.0, 5.0), head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), config())
    assert_close(logits, tensor([[[2.0, 5.0, 0.0]]]))


def test_eps_is_that_of_the_config(llama):
    # 1 / sqrt(1 + 3) = 0.5.
    logits = llama(tensor([[1]]), model(), config(rms_norm_eps=3.0))
    assert_close(logits, tensor([[[3.5, 1.0, 0.0]]]), "rms_norm_eps")


def test_eps_is_that_of_the_config_within_the_layers_too(llama):
    # Attention adds 0.5 to 1, and 1.5 / sqrt(2.25 + 3) = 0.654654.
    weights = model({"v": ONE, "o": ONE}, head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    logits = llama(tensor([[1]]), weights, config(rms_norm_eps=3.0))
    assert_close(logits, tensor([[[0.654654, 0.654654, 0.0]]]), "rms_norm_eps")


def test_the_layers_follow_one_another_in_the_order_of_their_numbers(llama):
    # Layer 0 turns 1, 1 into 1, -1 and layer 1 that into 3, -1, whose root mean square is sqrt(5). The other way
    # round layer 1 would add 1 - 1 = 0.
    layers = {"v": ONE, "o": [[0.0, 0.0], [-1.0, -1.0]]}, {"v": ONE, "o": [[1.0, -1.0], [0.0, 0.0]]}
    logits = llama(tensor([[1]]), model(*layers, head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), config(n_layers=2))
    assert_close(logits, tensor([[[1.341641, -0.447214, 0.0]]]))


def test_one_position_further_is_one_radian_in_the_first_pair(llama):
    # Queries and keys 1, 1 and 1, -1 stand at right angles; one radian apart the scores are 2 sin(1) / sqrt(2) and
    # 2 / sqrt(2), the weights 0.444185 and 0.555815. So -0.111630 joins -1, and 1 joins 1, before the last norm.
    weights = model({"q": ONE, "k": ONE, "v": ONE, "o": ONE}, head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    logits = llama(tensor([[1, 2]]), weights, config())
    assert_close(logits, tensor([[[1.0, 1.0, 0.0], [1.236109, -0.687048, 0.0]]]), "positions, one after another")


def test_rope_scaling_slows_the_rotation(llama):
    # The wavelength 2π is longer than 4 / 1, so the angle is 1/8: score 2 sin(1/8) / sqrt(2), weights 0.224802 and
    # 0.775198.
    weights = model({"q": ONE, "k": ONE, "v": ONE, "o": ONE}, head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    logits = llama(tensor([[1, 2]]), weights, config(rope_scaling=LLAMA3))
    assert_close(logits, tensor([[[1.0, 1.0, 0.0], [1.117709, -0.866445, 0.0]]]), "rope_scaling of the config")


def test_a_token_changes_the_logits_from_its_own_place_on(llama, imshow):
    words, sentence, other = ("the", "cat", "sat"), [0, 1, 2, 0], [0, 2, 2, 0]
    weights = model({"q": ONE, "k": ONE, "v": [[3.0, 0.0], [0.0, 3.0]], "o": ONE})
    logits, changed = (llama(tensor([ids]), weights, config())[0] for ids in (sentence, other))
    for title, values, ids in (("logits", logits, sentence), ("with another second token", changed, other)):
        read = {"yticklabels": [words[i] for i in ids], "ylabel": "is read", "xticklabels": words}
        imshow(values, title=title, xlabel="could be next", vmin=-4, vmax=8, **read)
    imshow(
        changed - logits, signed=True, title="difference", xlabel="could be next", ylabel="position", xticklabels=words
    )
    assert_close(changed[0], logits[0])
    assert (changed[1:] != logits[1:]).any(dim=-1).all()


@pytest.mark.refusal
def test_a_missing_weight_is_named(llama):
    weights = model()
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"llama: weights lacks model\.norm\.weight$"):
        llama(tensor([[1]]), weights, config())


@pytest.mark.refusal
def test_a_layer_too_many_is_refused(llama):
    with pytest.raises(ValueError, match=r"llama: weights has no use for model\.layers\.1\.input_layernorm\.weight, "):
        llama(tensor([[1]]), model({}, {}), config(n_layers=1))


@pytest.mark.refusal
def test_a_token_outside_the_vocabulary_is_an_index_error(llama):
    with pytest.raises(IndexError, match=r"embedding: token_ids must lie in 0\.\.2, got 3"):
        llama(tensor([[3]]), model(), config())


@pytest.mark.parametrize("outside", [-1, 3, -100])
def test_an_id_outside_the_vocabulary_is_an_index_error_and_counts_from_no_end(llama, outside):
    with pytest.raises(IndexError):
        llama(tensor([[1, outside]]), model(), config())


@pytest.mark.refusal
def test_tokens_without_a_batch_are_refused(llama):
    with pytest.raises(ValueError, match=r"llama: token_ids must be \[batch seq\], got \[2\]"):
        llama(tensor([1, 2]), model(), config())


def test_rope_scaling_takes_every_parameter_of_the_config(llama):
    # One turn per 2π positions and a context of 4π: 2 turns, on the bridge from 1.5 to 3.5, so s = 1/4 and the
    # frequency 1/4 + 3/4 / 8. With low 1 and high 4 it would be s = 1/3.
    own = LLAMA3 | {"low_freq_factor": 1.5, "high_freq_factor": 3.5, "original_max_position_embeddings": 4 * math.pi}
    weights = model({"q": ONE, "k": ONE, "v": ONE, "o": ONE}, head=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    angle = 0.25 + 0.75 / 8
    seen = 1 / (1 + math.exp(2 * (1 - math.sin(angle)) / math.sqrt(2)))  # the weight of the first key
    y = torch.tensor([1 + 1.0, -1 + seen - (1 - seen)])
    y = y / y.square().mean().sqrt()
    logits = llama(tensor([[1, 2]]), weights, config(rope_scaling=own))
    assert_close(logits[0, 1], tensor([y[0].item(), y[1].item(), 0.0]), "rope_scaling of the config, all four numbers")


def test_a_head_that_is_given_is_used_whatever_the_config_says(llama):
    tied = replace(config(), tie_word_embeddings=True)
    logits = llama(tensor([[1, 2]]), model(head=[[1.0, 0.0], [0.0, 1.0], [10.0, 1.0]]), tied)
    assert_close(logits, tensor([[[1.0, 1.0, 11.0], [1.0, -1.0, 9.0]]]), "lm_head.weight, where there is one")
