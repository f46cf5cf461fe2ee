"""What defines Llama, whatever the sizes. That it equals the naive loops is in every_layer/."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import arguments
from tests.cases.case import Case, cases
from tests.cases.sizes import small
from tests.cases.weights import LLAMA3, config, model_weights
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical, fail
from tests.judge.subject import REFERENCE, exact, word

SIZES = "batch seq n_kv_heads groups half d_model d_ff vocab n_layers"
# The norm of a vector of one or two features may be near zero, where it magnifies rounding.
WIDE = {"d_model": (3, 11)}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def different_tokens(case):
    """In each row no token twice: attention over equal tokens would hide what its scores are."""
    return case.uniform("batch vocab").argsort(dim=-1)[:, : case.seq]


def composed(token_ids, weights, of):
    """The forward pass, from the naive loops of its parts, in float64."""
    ids, weights = exact((token_ids, weights))
    frequencies = REFERENCE.rope_frequencies(of.head_dim, of.rope_theta)
    if of.rope_scaling:
        frequencies = REFERENCE.llama3_frequencies(frequencies, 4.0, 1.0, 4.0, 20)
    heads = of.num_attention_heads, of.num_key_value_heads
    x = REFERENCE.embedding(ids, weights[EMBEDDING])
    for i in range(of.num_hidden_layers):
        own = {name: w for name, w in weights.items() if name.startswith(f"model.layers.{i}.")}
        own = {name.split(".", 3)[3]: w for name, w in own.items()}
        x = REFERENCE.decoder_layer(x, own, *heads, torch.arange(ids.shape[1]), frequencies, of.rms_norm_eps)
    x = REFERENCE.rms_norm(x, weights["model.norm.weight"], of.rms_norm_eps)
    return REFERENCE.linear(x, weights[EMBEDDING if of.tie_word_embeddings else HEAD])


@given(
    case=cases(SIZES, **WIDE),
    more=st.fixed_dictionaries(
        {
            "tie_word_embeddings": st.booleans(),
            "rms_norm_eps": st.sampled_from([1e-6, 1e-2]),
            "rope_theta": st.sampled_from([10.0, 10000.0]),
            "rope_scaling": st.sampled_from([None, LLAMA3]),
        }
    ),
)
def test_it_is_embedding_layers_norm_and_head_as_the_config_says(llama, case, more):
    of = config(case, **more)
    token_ids, weights = case.integers("batch seq", case.vocab), model_weights(case, of)
    assert_close(llama(token_ids, weights, of), composed(token_ids, weights, of), dtype=case.dtype)


@given(case=cases(SIZES, seq=(2, 7), vocab=(2, 13)))
def test_a_later_token_changes_no_logit_before_it(llama, case):
    of = config(case)
    token_ids, weights = case.integers("batch seq", case.vocab), model_weights(case, of)
    first = 1 + case.seed % (case.seq - 1)
    changed = token_ids.clone()
    changed[:, first:] = (changed[:, first:] + 1) % case.vocab
    before = llama(token_ids, weights, of)[:, :first]
    assert_identical(llama(changed, weights, of)[:, :first], before, "what reads later positions: attention, a mean")


@given(case=cases(SIZES, seq=(2, 7), **WIDE))
def test_a_prefix_alone_has_the_logits_it_has_within_the_whole(llama, case):
    of = config(case)
    token_ids, weights = case.integers("batch seq", case.vocab), model_weights(case, of)
    length = 1 + case.seed % (case.seq - 1)
    alone = llama(token_ids[:, :length], weights, of)
    assert_close(alone, llama(token_ids, weights, of)[:, :length], "what depends on seq: positions, a mean, a mask")


@given(case=cases(SIZES))
def test_a_missing_head_is_the_embedding(llama, case):
    of = config(case, tie_word_embeddings=True)
    token_ids, tied = case.integers("batch seq", case.vocab), model_weights(case, of)
    untied = tied | {HEAD: tied[EMBEDDING].clone()}
    logits = llama(token_ids, untied, replace(of, tie_word_embeddings=False))
    assert_close(llama(token_ids, tied, of), logits, "the tied head")


@given(case=cases(SIZES))
def test_the_logits_are_linear_in_the_head(llama, case):
    of = config(case)
    token_ids, weights = case.integers("batch seq", case.vocab), model_weights(case, of)
    tripled = weights | {HEAD: 3 * weights[HEAD]}
    assert_close(llama(token_ids, tripled, of), 3 * llama(token_ids, weights, of), "lm_head.weight, where there is one")


@pytest.mark.tensors
@given(case=cases(SIZES, seq=(2, 5), vocab=(5, 13), **WIDE))
def test_every_weight_matters(llama, case):
    of = config(case)
    weights = {name: w.requires_grad_() for name, w in model_weights(case, of).items()}
    logits = llama(different_tokens(case), weights, of)
    gradients = torch.autograd.grad(logits.square().sum(), list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is None or not gradient.any():
            fail(f"{name} has no influence")


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 0.1}, {"rope_theta": 10.0}, {"rope_scaling": LLAMA3}], ids=lambda c: next(iter(c))
)
@given(case=cases(SIZES, seq=(2, 5), vocab=(5, 13), half=(2, 5), **WIDE))
def test_every_constant_of_the_config_matters(llama, change, case):
    # The first frequency is 1 whatever theta is, so two are needed.
    of = config(case)
    token_ids, weights = different_tokens(case), model_weights(case, of)
    if torch.equal(llama(token_ids, weights, replace(of, **change)), llama(token_ids, weights, of)):
        fail(f"{', '.join(change)} has no influence")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
def test_a_large_stream_is_normed_in_at_least_float32(llama, dtype):
    # 300 squared is beyond float16.
    for seed in range(4):
        (token_ids, weights, of), _ = arguments("llama", Case(small("llama"), dtype, seed))
        large = weights | {EMBEDDING: 300 * weights[EMBEDDING], HEAD: weights[EMBEDDING]}
        assert_equals_formula(llama, token_ids, large, of, look_at="squares in at least float32")


@pytest.mark.tensors
def test_a_longer_text_after_a_shorter_one_is_read_to_its_end(llama):
    (token_ids, weights, of), _ = arguments("llama", Case(small("llama") | {"seq": 9}, torch.float32, 0))
    for length in (2, 5, 1, 9):
        assert_equals_formula(llama, token_ids[:, :length], weights, of, look_at="a table that is made for one length")
