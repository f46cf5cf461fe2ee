"""The whole model: what holds end to end, whosever layers compute it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llama.generation.stream import generate
from llama.implementation import Implementation
from llama.model.config import LlamaConfig
from llama.model.kv_cache import KVCache
from llama.model.language_model import evaluating
from llama.model.llama import Llama
from tests.cases import target
from tests.cases.case import Case, cases
from tests.cases.weights import config, model_weights
from tests.judge.assertions import assert_close, assert_equals_naive, assert_identical
from tests.judge.subject import Subject

SIZES = "batch seq n_kv_heads groups half d_model d_ff vocab n_layers"


def _model(implementation, case, **more):
    """A model with weights large enough that every one matters, in the case's dtype on the device."""
    of = config(case, **more)
    model = Llama(of, implementation).to(target.DEVICE, case.dtype)
    model.load_state_dict(model_weights(case, of))
    return model.eval()


@given(case=cases(SIZES))
def test_the_logits_are_those_of_the_naive_loops(implementation, case):
    model = _model(implementation, case)
    subject = Subject("llama", implementation)
    assert_equals_naive(subject, case.integers("batch seq", case.vocab), model.state_dict(), model.config)


@torch.no_grad()
@given(case=cases(SIZES, seq=(2, 7), vocab=(2, 13)), data=st.data())
def test_a_later_token_changes_no_logit_before_it_to_the_last_bit(implementation, case, data):
    model, ids = _model(implementation, case), case.integers("batch seq", case.vocab)
    kept = data.draw(st.integers(1, case.seq - 1), label="tokens kept")
    changed = ids.clone()
    changed[:, kept:] = (changed[:, kept:] + 1) % case.vocab
    assert_identical(model(changed)[:, :kept], model(ids)[:, :kept], "a mean or a softmax over the sequence")


@torch.no_grad()
@given(case=cases(SIZES), data=st.data())
def test_chunks_of_any_sizes_with_the_cache_equal_one_pass(implementation, case, data):
    # Composed by us: a cache is not part of the contract of a composed layer.
    model, ids = _model(implementation.recomposed(), case), case.integers("batch seq", case.vocab)
    cache, chunks = KVCache(model.config, case.batch, case.dtype, target.DEVICE), []
    while cache.length < case.seq:
        size = data.draw(st.integers(1, case.seq - cache.length), label="chunk")
        chunks.append(model(ids[:, cache.length : cache.length + size], cache))
    assert_close(torch.cat(chunks, dim=1), model(ids), "positions, or the mask, of queries behind a cache")


@torch.no_grad()
def test_the_loss_at_initialisation_is_that_of_a_uniform_guess(implementation):
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocab_size=65, hidden_size=32, num_hidden_layers=2), implementation).to(target.DEVICE)
    ids = Case({"batch": 8, "seq": 32}, torch.float32, seed=0).integers("batch seq", 65)
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
    # The initial logits have a variance of about initializer_range² · d_model, which costs half of it.
    assert math.log(65) * 0.95 < loss < math.log(65) * 1.05


@pytest.mark.parametrize("tied", [False, True])
@given(case=cases("n_kv_heads groups half d_model d_ff vocab n_layers"))
def test_the_number_of_parameters_follows_the_formula(tied, case):
    q, kv = case.n_heads * case.head_dim, case.n_kv_heads * case.head_dim
    layer = 2 * case.d_model * (q + kv) + 3 * case.d_model * case.d_ff + 2 * case.d_model
    expected = (1 if tied else 2) * case.vocab * case.d_model + case.n_layers * layer + case.d_model
    assert sum(p.numel() for p in Llama(config(case, tie_word_embeddings=tied)).parameters()) == expected


def test_a_pass_that_fills_a_cache_has_the_gradients_of_one_without():
    of = LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    model, ids, gradients = Llama(of).to(target.DEVICE), target.tensor([[2, 3, 1]]), []
    for cache in (None, KVCache(of, 1, device=target.DEVICE)):
        model.zero_grad()
        model(ids, cache).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, name)


def test_no_sequences_have_no_logits_with_a_cache_too():
    of = LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    assert Llama(of)(torch.empty(0, 3, dtype=torch.int64), KVCache(of, 0)).shape == (0, 3, 5)


def test_a_cache_refuses_more_positions_than_the_context():
    shape = LlamaConfig(vocab_size=5, hidden_size=8, num_attention_heads=2, max_position_embeddings=4)
    cache = KVCache(shape, batch=1)
    with pytest.raises(ValueError, match="cache: 5 positions do not fit into a context of 4"):
        Llama(shape)(torch.zeros(1, 5, dtype=torch.int64), cache)


SMALL = LlamaConfig(
    vocab_size=11,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=12,
)


def _small():
    torch.manual_seed(1)
    return Llama(SMALL)


PROMPT = torch.tensor([[1, 2, 3], [4, 5, 6]])


def test_greedy_generation_takes_the_likeliest_token_of_the_full_pass_each_time():
    model, ids = _small(), PROMPT
    for _ in range(6):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(dim=-1)), dim=1)
    assert torch.equal(generate(model, PROMPT, 6, temperature=0.0), ids)


def test_the_same_seed_generates_the_same_tokens_and_another_seed_others():
    model = _small()
    first, again, other = (generate(model, PROMPT, 9, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_beyond_the_context_the_older_half_is_forgotten_and_the_rest_read_again():
    # The same without a cache: what is in sight grows to 12 tokens, and then falls back to the newest 6.
    model = _small()
    seen, expected = PROMPT, PROMPT
    for _ in range(30):
        if seen.shape[1] > 12:
            seen = seen[:, -6:]
        token = model(seen)[:, -1:].argmax(dim=-1)
        seen, expected = torch.cat((seen, token), dim=1), torch.cat((expected, token), dim=1)
    assert torch.equal(generate(model, PROMPT, 30, temperature=0.0), expected)


def test_top_k_of_one_is_greedy_whatever_the_temperature():
    model = _small()
    assert torch.equal(
        generate(model, PROMPT, 6, temperature=5.0, top_k=1), generate(model, PROMPT, 6, temperature=0.0)
    )


def test_an_empty_prompt_and_one_longer_than_the_context_are_refused():
    for length in (0, 13):
        with pytest.raises(ValueError, match=f"the prompt must have 1 to 12 tokens, got {length}"):
            generate(_small(), torch.zeros(1, length, dtype=torch.int64), 1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, "num_attention_heads must divide hidden_size, got 4 and 10"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "must divide num_attention_heads, got 3 and 4"),
        ({"head_dim": 7}, "head_dim must be even, got 7"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "only rope_type llama3 is supported, got 'yarn'"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        LlamaConfig(vocab_size=5, **wrong)


def test_layers_that_an_implementation_composes_itself_are_those_that_generate():
    own = Implementation("mine", {"llama": lambda ids, weights, config: torch.nn.functional.one_hot(ids, 11).float()})
    model = Llama(SMALL, own)
    # Each token is followed by itself, without a cache, which a composed layer of another's knows nothing of.
    assert torch.equal(generate(model, PROMPT, 20, temperature=0.0)[:, 3:], PROMPT[:, -1:].expand(2, 20))
    with pytest.raises(ValueError, match="cache: llama of mine has no use for it"):
        model(PROMPT, KVCache(SMALL, batch=2))


def test_dropout_meets_the_embeddings_and_what_each_block_adds_in_training_alone():
    model, calls = Llama(SMALL), []
    exact = model(PROMPT)

    def nothing(x):
        calls.append(x)
        return torch.zeros_like(x)

    model.dropout = nothing
    assert torch.equal(model.eval()(PROMPT), exact)
    assert not calls
    assert torch.equal(model.train()(PROMPT), torch.zeros_like(exact))  # of nothing, norms and head make nothing
    assert len(calls) == 1 + 2 * SMALL.num_hidden_layers


def test_nothing_is_dropped_in_a_text_and_a_model_in_training_stays_in_training():
    model = _small().train()
    expected = generate(model, PROMPT, 6, temperature=0.0)
    model.dropout = torch.zeros_like
    assert torch.equal(generate(model, PROMPT, 6, temperature=0.0), expected)
    assert model.training
    generate(model.eval(), PROMPT, 6, temperature=0.0)
    assert not model.training


def test_a_part_that_drops_is_told_whether_the_model_is_in_training():
    model = _small().train()
    model.model.part = nn.Dropout()
    with evaluating(model):
        assert not model.model.part.training
    assert model.model.part.training


def test_dropout_is_refused_where_the_layers_are_composed_by_another():
    model = Llama(SMALL, Implementation("mine", {"decoder_layer": lambda x, *_, **__: x}))
    model.dropout = torch.zeros_like
    with pytest.raises(ValueError, match="dropout: decoder_layer of mine has no use for it"):
        model(PROMPT)
