"""The decoder: one token at a time, by other operations than the model's, to the same logits."""

import copy
import dataclasses
import functools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.implementation import Implementation, load
from llama.model import products
from llama.model.config import LlamaConfig
from llama.model.decoder import Decoder
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from tests.cases.case import cases
from tests.cases.weights import config, model_weights
from tests.judge.assertions import assert_close
from tests.judge.tolerances import tolerance

SIZES = "batch seq n_kv_heads groups half d_model d_ff vocab n_layers"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@torch.no_grad()
@given(
    case=cases(SIZES, [torch.float32, torch.float64], batch=(1, 1)),
    tied=st.booleans(),
    scaling=st.sampled_from([None, LLAMA3]),
    data=st.data(),
)
def test_a_token_has_the_logits_that_it_has_in_a_pass_over_all(case, tied, scaling, data):
    of = dataclasses.replace(config(case), tie_word_embeddings=tied, rope_scaling=scaling)
    model, ids = Llama(of).to(case.dtype), case.integers("batch seq", case.vocab).cpu()
    weights = model_weights(case, of)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    whole, cache, decoder = model(ids)[0], KVCache(of, 1, case.dtype), Decoder(model)
    prompt = data.draw(st.integers(0, case.seq - 1), label="tokens before the decoder's")
    if prompt:
        model(ids[:, :prompt], cache)
    rows = [decoder(token, cache) for token in ids[0, prompt:].tolist()]
    assert_close(torch.stack(rows), whole[prompt:], "the decoder's own copy of the model's formulas")


@torch.no_grad()
@pytest.mark.parametrize("d_model", [390, 391])
def test_large_matrices_are_multiplied_in_halves_to_the_same_product(d_model):
    torch.manual_seed(0)
    of = LlamaConfig(
        vocab_size=997,
        hidden_size=d_model,
        num_hidden_layers=1,
        num_attention_heads=2,
        head_dim=10,
        intermediate_size=1022,
    )
    assert of.vocab_size * d_model > products.LARGE
    model, ids, cache = Llama(of), torch.arange(5)[None], KVCache(of, 1)
    decoder = Decoder(model)
    rows = [decoder(token, cache) for token in ids[0].tolist()]
    assert_close(torch.stack(rows), model(ids)[0])


@torch.no_grad()
@pytest.mark.parametrize(
    ("weights", "computed"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, None)],
    ids=str,
)
@pytest.mark.parametrize("small", [0, products.SMALL], ids=["as bfloat16", "as float32"])
def test_in_bfloat16_the_logits_are_those_of_the_model_to_its_rounding(weights, computed, small, monkeypatch):
    monkeypatch.setattr(products, "SMALL", small)
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocab_size=37, hidden_size=64, num_hidden_layers=2, num_key_value_heads=2)).to(weights)
    for norm in (p for p in model.parameters() if p.ndim == 1):
        norm.uniform_(0.5, 1.5)
    ids, exact = torch.arange(6)[None], copy.deepcopy(model).float()(torch.arange(6)[None])[0]
    model.compute_dtype = computed
    assert Decoder.suits(model)
    cache, decoder = KVCache(model.config, 1, torch.bfloat16), Decoder(model)
    model(ids[:, :2], cache)
    rows = [decoder(token, cache) for token in ids[0, 2:].tolist()]
    held = {product.weight.dtype for product in (decoder.head, *decoder.layers[0])}
    assert (rows[0].dtype, held) == (torch.float32, {torch.float32 if small else torch.bfloat16})
    assert_close(torch.stack(rows), exact[2:], within=tolerance(torch.bfloat16))


@torch.no_grad()
def test_a_decoder_does_not_see_what_becomes_of_the_model():
    model = Llama(LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2))
    decoder = Decoder(model)
    before = decoder(3, KVCache(model.config, 1))
    for parameter in model.parameters():
        parameter += 1
    assert torch.equal(decoder(3, KVCache(model.config, 1)), before)


TINY = LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=2)


def _decoder():
    return Decoder(Llama(TINY)), KVCache(TINY, 1)


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_the_vocabulary_is_refused(token):
    decoder, cache = _decoder()
    with pytest.raises(IndexError, match=f"decoder: token must lie in 0..4, got {token}"):
        decoder(token, cache)
    assert cache.length == 0


def test_a_full_cache_is_refused_and_left_as_it_was():
    decoder, cache = _decoder()
    for token in (1, 2):
        decoder(token, cache)
    with pytest.raises(ValueError, match="cache: 3 positions do not fit into a context of 2"):
        decoder(3, cache)
    assert [layer.length for layer in cache.layers] == [2, 2]


def test_more_positions_than_a_decoder_was_made_for_are_refused_and_left_out_of_the_cache():
    decoder, _ = _decoder()
    longer = KVCache(dataclasses.replace(TINY, max_position_embeddings=3), 1)
    for token in (1, 2):
        decoder(token, longer)
    with pytest.raises(ValueError, match="decoder: 3 positions do not fit into the 2 that it was made for"):
        decoder(3, longer)
    assert longer.length == 2


@pytest.mark.parametrize("large", [products.LARGE, 1], ids=["whole", "in halves"])
def test_nothing_of_one_token_reaches_the_next(large, monkeypatch):
    monkeypatch.setattr(products, "LARGE", large)
    decoder, cache = _decoder()
    before = decoder(3, cache)
    decoder.embedding[1] = torch.nan
    _, broken = _decoder()
    assert decoder(1, broken).isnan().all()
    _, other = _decoder()
    assert torch.equal(decoder(3, other), before)
    assert torch.equal(decoder(2, cache), decoder(2, other))


def test_a_decoder_that_was_made_without_autograd_works_with_it():
    with torch.inference_mode():
        decoder, _ = _decoder()
    _, cache = _decoder()
    assert decoder(3, cache).isfinite().all()


def test_logits_may_be_changed_and_have_gradients():
    decoder, cache = _decoder()
    logits = decoder(3, cache)
    logits += 1
    logits.requires_grad_().sum().backward()
    assert logits.grad.tolist() == [1] * 5


def test_a_copy_of_a_cache_is_decoded_to_the_same_logits():
    decoder, cache = _decoder()
    decoder(3, cache)
    copies = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))]
    expected = decoder(2, cache)
    for other in copies:
        assert torch.equal(decoder(2, other), expected)


def test_a_copy_of_a_decoder_is_refused():
    decoder, _ = _decoder()
    with pytest.raises(TypeError, match="decoder: it cannot be copied or pickled; make another one from the model"):
        copy.deepcopy(decoder)


def test_a_cache_of_other_sequences_or_of_another_dtype_is_refused_and_left_as_it_was():
    of = LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    model, two, half = Llama(of), KVCache(of, 2), KVCache(of, 1, torch.bfloat16)
    with pytest.raises(ValueError, match="cache: it was made for 2 sequences, got 1"):
        model(torch.tensor([[1]]), two)
    with pytest.raises(ValueError, match="cache: it was made for 2 sequences, got 1"):
        Decoder(model)(1, two)
    with pytest.raises(ValueError, match="cache: it was made for bfloat16, got float32"):
        model(torch.tensor([[1]]), half)
    assert two.length == half.length == 0


@pytest.mark.parametrize(
    "ids", [torch.tensor([1, 2]), torch.tensor([[1, 2]], dtype=torch.int32)], ids=["flat", "int32"]
)
def test_ids_of_another_shape_or_dtype_are_refused(ids):
    with pytest.raises((ValueError, TypeError), match=r"token_ids"):
        Llama(LlamaConfig(vocab_size=5, hidden_size=8, num_attention_heads=2))(ids)


def test_what_wraps_a_layer_is_not_taken_for_the_layer():
    @functools.wraps(load("fused").silu)
    def doubled(x):
        return 2 * load("fused").silu(x)

    mine = Implementation("mine", {"silu": doubled}).unchecked()
    assert torch.equal(mine.silu(torch.ones(2)), doubled(torch.ones(2)))


def test_a_decoder_stands_in_for_our_fused_layers_alone():
    of = LlamaConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)
    assert Decoder.suits(Llama(of))
    assert not Decoder.suits(Llama(of, "vectorized"))


@pytest.mark.parametrize(
    ("weights", "computed", "suits"),
    [
        (torch.float32, None, True),
        (torch.float64, None, True),
        (torch.bfloat16, None, True),
        (torch.float16, None, False),
        (torch.float32, torch.float64, False),
        (torch.bfloat16, torch.float32, False),
    ],
    ids=str,
)
def test_a_decoder_stands_in_where_it_computes_in_the_dtype_of_the_model(weights, computed, suits):
    model = Llama(LlamaConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)).to(weights)
    model.compute_dtype = computed
    assert Decoder.suits(model) == suits


@pytest.mark.parametrize("computed", [None, torch.bfloat16], ids=str)
def test_a_decoder_does_not_stand_in_for_weights_of_several_dtypes(computed):
    model = Llama(LlamaConfig(vocab_size=5, hidden_size=8, num_attention_heads=2))
    model.lm_head.bfloat16()
    model.compute_dtype = computed
    assert not Decoder.suits(model)


@pytest.mark.parametrize("name", ["naive", "vectorized", "fused"])
def test_unchecked_layers_compute_the_same_and_refuse_nothing(name):
    layers = load(name)
    x, weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.ones(3)
    assert torch.equal(layers.unchecked().rms_norm(x, weight), layers.rms_norm(x, weight))
    with pytest.raises(TypeError, match="rms_norm: eps"):
        layers.rms_norm(x, weight, eps=True)
    if name != "naive":  # whose check is of arrays
        layers.unchecked().rms_norm(x, weight, eps=True)
