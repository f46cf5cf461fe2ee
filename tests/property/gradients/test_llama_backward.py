"""What defines the gradient of Llama, whatever the sizes. That it is the derivative is in every_layer/."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.cases.sizes import small
from tests.cases.weights import LLAMA3, config, model_weights
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import REFERENCE, exact, word

SIZES = "batch seq n_kv_heads groups half d_model d_ff vocab n_layers"
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def _arguments(case, **more):
    of = config(case, **more)
    ids, targets = (case.integers("batch seq", case.vocab) for _ in range(2))
    return ids, targets, model_weights(case, of), of


@given(case=cases(SIZES), tied=st.booleans())
def test_the_loss_is_the_cross_entropy_of_llama(llama_backward, case, tied):
    ids, targets, weights, of = _arguments(case, tie_word_embeddings=tied)
    loss, _ = llama_backward(ids, targets, weights, of)
    args = exact((ids, weights))
    expected = REFERENCE.cross_entropy(REFERENCE.llama(*args, of), targets.cpu())
    assert_close(loss, expected, "the loss before the gradients", dtype=case.dtype)


@given(case=cases(SIZES))
def test_where_the_head_is_tied_both_gradients_of_the_table_add_up(llama_backward, case):
    ids, targets, tied, of = _arguments(case, tie_word_embeddings=True)
    untied = tied | {HEAD: tied[EMBEDDING].clone()}
    loss, gradients = llama_backward(ids, targets, tied, of)
    of_untied, apart = llama_backward(ids, targets, untied, replace(of, tie_word_embeddings=False))
    both = apart.pop(HEAD)
    assert_close(loss, of_untied)
    assert_close(gradients, apart | {EMBEDDING: apart[EMBEDDING] + both}, "the tied head: the sum of its two uses")


@given(case=cases(SIZES))
def test_a_head_that_is_given_is_not_tied_whatever_the_config_says(llama_backward, case):
    ids, targets, weights, of = _arguments(case)
    apart, together = (
        llama_backward(ids, targets, weights, replace(of, tie_word_embeddings=tied)) for tied in (False, True)
    )
    assert_close(together, apart, "lm_head.weight, where there is one")


@given(case=cases(SIZES, vocab=(5, 13), seq=(1, 3), batch=(1, 1)))
def test_the_row_of_a_token_that_is_not_read_gets_nothing(llama_backward, case):
    ids, targets, weights, of = _arguments(case)
    gradient = llama_backward(ids, targets, weights, of)[1][EMBEDDING]
    unread = torch.ones(case.vocab, dtype=torch.bool, device=ids.device)
    unread[ids.flatten()] = False
    assert_identical(gradient[unread], torch.zeros_like(gradient[unread]), "the embedding: rows that were read")


@given(case=cases(SIZES, seq=(2, 5), vocab=(7, 13)))
def test_the_row_of_the_last_token_learns_nothing_from_the_targets_before_it(llama_backward, case):
    # A token that no other entry or place has; the loss at the places before it does not depend on it.
    ids, targets, weights, of = _arguments(case)
    ids = ids % (case.vocab - 1)
    ids[0, -1] = case.vocab - 1
    others = (targets + 1) % case.vocab
    others[:, -1] = targets[:, -1]
    before, after = (llama_backward(ids, t, weights, of)[1][EMBEDDING][-1] for t in (targets, others))
    assert_close(after, before, "causal: nothing comes back to later tokens", name="the row of the last token")


@given(case=cases(SIZES, batch=(2, 3)))
def test_the_gradients_of_a_batch_are_the_mean_of_those_of_its_entries(llama_backward, case):
    ids, targets, weights, of = _arguments(case)
    loss, gradients = llama_backward(ids, targets, weights, of)
    entries = [llama_backward(ids[b : b + 1], targets[b : b + 1], weights, of) for b in range(case.batch)]
    assert_close(loss, sum(one for one, _ in entries) / case.batch, "the mean over all tokens")
    for name, gradient in gradients.items():
        mean = sum(of_entry[name] for _, of_entry in entries) / case.batch
        assert_close(gradient, mean, "the mean over all tokens", name=f'gradients["{name}"]')


@given(case=cases(SIZES))
def test_the_last_norm_gets_as_much_along_its_weight_as_the_head(llama_backward, case):
    # Twice the weight of the norm is as good as twice the head.
    ids, targets, weights, of = _arguments(case)
    _, gradients = llama_backward(ids, targets, weights, of)
    along_norm, along_head = ((gradients[name] * weights[name]).sum() for name in (NORM, HEAD))
    assert_close(along_norm, along_head, "model.norm, before the head")


@pytest.mark.tensors
@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 0.1}, {"rope_theta": 10.0}, {"rope_scaling": LLAMA3}], ids=lambda c: next(iter(c))
)
def test_every_constant_of_the_config_holds_on_the_way_back_too(llama_backward, change):
    sizes = small("llama_backward") | {"seq": 7, "half": 5, "n_layers": 2}
    ids, targets, weights, of = _arguments(Case(sizes, torch.float64, seed=1), **change)
    assert_equals_formula(llama_backward, ids, targets, weights, of, look_at=next(iter(change)))


@pytest.mark.tensors
def test_layer_10_does_not_come_before_layer_2(llama_backward):
    sizes = small("llama_backward") | {"n_layers": 11}
    args = _arguments(Case(sizes, torch.float64, seed=2))
    assert_equals_formula(llama_backward, *args, look_at="layers in the order of their numbers")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
def test_a_large_stream_is_normed_in_at_least_float32(llama_backward, dtype):
    # 300 squared is beyond float16.
    for seed in range(4):
        ids, targets, weights, of = _arguments(Case(small("llama_backward"), dtype, seed))
        large = weights | {EMBEDDING: 300 * weights[EMBEDDING]}
        assert_equals_formula(llama_backward, ids, targets, large, of, look_at="squares in at least float32")
