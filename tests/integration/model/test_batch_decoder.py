"""The decoder of several tokens: of one sequence or of more, by other operations than the model's, the same logits."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.model import products
from llama.model.batch_decoder import BatchDecoder
from llama.model.config import LlamaConfig
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.paged_cache import Pages, Places
from llama.model.quantized import quantized
from tests.cases.case import cases
from tests.cases.weights import LLAMA3, config, model_weights
from tests.judge.assertions import assert_close
from tests.judge.tolerances import tolerance

SIZES = "batch seq n_kv_heads groups half d_model d_ff vocab n_layers"
TINY = LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=9)


def _pages(of, batch, dtype=torch.float32):
    """Caches for one pass after another over so many sequences."""
    pages = Pages(of, dtype, page_size=2)
    sequences = [pages.sequence() for _ in range(batch)]
    return lambda seq: pages.cache(sequences, seq)


def _dense(of, batch, dtype=torch.float32):
    cache = KVCache(of, batch, dtype)
    return lambda seq: cache


@torch.no_grad()
@pytest.mark.parametrize("caches", [_pages, _dense])
@pytest.mark.parametrize("large", [0, products.LARGE], ids=["in blocks", "as they are"])
@given(
    case=cases(SIZES, [torch.float32, torch.float64], batch=(1, 3), seq=(1, 9)),
    tied=st.booleans(),
    scaling=st.sampled_from([None, LLAMA3]),
    alike=st.booleans(),
    data=st.data(),
)
def test_tokens_have_the_logits_that_they_have_in_a_pass_over_all(caches, large, case, tied, scaling, alike, data):
    of = dataclasses.replace(config(case), tie_word_embeddings=tied, rope_scaling=scaling)
    model, ids = Llama(of).to(case.dtype), case.integers("batch seq", case.vocab).cpu()
    weights = model_weights(case, of)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "LARGE", large)
        patch.setattr(Places, "alike", alike)
        decoder, cache, found = BatchDecoder(model), caches(of, case.batch, case.dtype), []
        while (held := sum(part.shape[1] for part in found)) < case.seq:
            seq = data.draw(st.integers(1, case.seq - held), label="tokens of a pass")
            found.append(decoder(ids[:, held : held + seq], cache(seq), last=seq))
    assert_close(torch.cat(found, dim=1), model(ids), "the decoder's own copy of the model's formulas")


def test_codes_would_have_to_become_floats_and_are_left_to_the_model():
    model = Llama(TINY)
    assert BatchDecoder.suits(model)
    assert not BatchDecoder.suits(quantized(model, 8))
    assert not BatchDecoder.suits(Llama(TINY, "vectorized"))


@torch.no_grad()
@pytest.mark.parametrize(("weights", "computed"), [(torch.float32, torch.bfloat16), (torch.bfloat16, None)], ids=str)
@pytest.mark.parametrize("small", [0, products.SMALL], ids=["as bfloat16", "as float32"])
@pytest.mark.parametrize("large", [0, products.LARGE], ids=["in blocks", "as they are"])
def test_in_bfloat16_the_logits_are_those_of_the_model_to_its_rounding(weights, computed, small, large, monkeypatch):
    monkeypatch.setattr(products, "SMALL", small)
    monkeypatch.setattr(products, "LARGE", large)
    torch.manual_seed(0)
    model, ids = Llama(TINY).to(weights), torch.arange(8).view(2, 4) % 5
    model.compute_dtype = computed
    exact = copy.deepcopy(model).float()
    exact.compute_dtype = None
    cache, decoder = _pages(TINY, 2, torch.bfloat16), BatchDecoder(model)
    found = [decoder(ids[:, t : t + 1], cache(1)) for t in range(4)]
    assert found[0].dtype == torch.float32
    _, o, _, down = decoder.layers[0]
    assert {o.weight.dtype, down.weight.dtype} == {torch.float32 if small else torch.bfloat16}
    assert_close(torch.cat(found, dim=1), exact(ids), within=tolerance(torch.bfloat16))


@torch.no_grad()
@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_logits_are_those_of_the_last_tokens(last):
    torch.manual_seed(0)
    model, ids = Llama(TINY), torch.tensor([[1, 2, 3]])
    assert_close(BatchDecoder(model)(ids, KVCache(TINY, 1), last), model(ids)[:, -last:])


@torch.no_grad()
def test_a_decoder_does_not_see_what_becomes_of_the_model():
    model, ids = Llama(TINY), torch.tensor([[1, 2, 3]])
    decoder = BatchDecoder(model)
    before = decoder(ids, KVCache(TINY, 1))
    for parameter in model.parameters():
        parameter += 1
    assert torch.equal(decoder(ids, KVCache(TINY, 1)), before)


@torch.no_grad()
@pytest.mark.parametrize("alike", [True, False], ids=["at once", "one after the other"])
def test_what_is_not_finite_in_one_text_reaches_no_other(alike, monkeypatch):
    """Neither while it is written, nor by the pages that it leaves."""
    monkeypatch.setattr(Places, "alike", alike)
    torch.manual_seed(0)
    model = Llama(TINY)
    model.model.embed_tokens.weight[4] = torch.nan
    decoder, pages = BatchDecoder(model), Pages(TINY, page_size=4)
    broken, whole = pages.sequence(), pages.sequence()
    decoder(torch.tensor([[4, 4, 4, 4, 4]]), pages.cache([broken], 5))
    decoder(torch.tensor([[1]]), pages.cache([whole], 1))
    logits = decoder(torch.tensor([[4], [2]]), pages.cache([broken, whole], 1))
    assert logits[0].isnan().all()
    assert_close(logits[1:], model(torch.tensor([[1, 2]]))[:, -1:])
    broken.release()
    following = pages.sequence()
    for token in (3, 2):
        logits = decoder(torch.tensor([[token], [token]]), pages.cache([following, whole], 1))
    assert_close(logits, torch.stack([model(torch.tensor([ids]))[0, -1:] for ids in ([3, 2], [1, 2, 3, 2])]))


@torch.no_grad()
@pytest.mark.parametrize("slots", [2, 4, 8])
def test_what_is_rewound_leaves_nothing_that_is_not_finite(slots):
    torch.manual_seed(0)
    model = Llama(TINY)
    model.model.embed_tokens.weight[4] = torch.nan
    decoder, pages = BatchDecoder(model), Pages(TINY, page_size=slots)
    sequence = pages.sequence()
    for token in (1, 4, 4):
        decoder(torch.tensor([[token]]), pages.cache([sequence], 1))
    sequence.rewind(1)
    logits = decoder(torch.tensor([[2]]), pages.cache([sequence], 1))
    assert_close(logits, model(torch.tensor([[1, 2]]))[:, -1:])


@pytest.mark.parametrize("ids", [[[1, -1]], [[5]], [1, 2]], ids=str)
def test_what_the_model_refuses_is_refused_in_the_same_words_and_changes_nothing(ids):
    model, cache = Llama(TINY), KVCache(TINY, 1)
    said = []
    for compute in (model, BatchDecoder(model)):
        with pytest.raises((IndexError, ValueError), match=r"token_ids") as refused:
            compute(torch.tensor(ids), cache)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert cache.length == 0


@pytest.mark.parametrize("shape", [(1, 0), (0, 1), (0, 3)], ids=str)
def test_of_nothing_there_are_no_logits(shape):
    ids = torch.zeros(shape, dtype=torch.int64)
    logits = BatchDecoder(Llama(TINY))(ids, KVCache(TINY, len(ids)))
    assert logits.shape == (shape[0], min(shape[1], 1), TINY.vocab_size)


def test_a_cache_of_other_sequences_or_without_room_is_refused_and_left_as_it_was():
    decoder, two, full = BatchDecoder(Llama(TINY)), KVCache(TINY, 2), KVCache(TINY, 1)
    with pytest.raises(ValueError, match="cache: it was made for 2 sequences, got 1"):
        decoder(torch.tensor([[1]]), two)
    full.claim(8)
    with pytest.raises(ValueError, match="cache: 10 positions do not fit into a context of 9"):
        decoder(torch.tensor([[1, 2]]), full)
    assert (two.length, full.length) == (0, 8)


@pytest.mark.parametrize(
    ("lengths", "alike"),
    [([90, 5], True), ([2000, 2000], True), ([2000, 5], False), ([9000, 9000], False), ([1800, 1500, 1300], True)],
    ids=str,
)
def test_texts_are_read_at_once_where_that_copies_little_in_vain(lengths, alike):
    """A position has 2 KB of keys here."""
    of = dataclasses.replace(TINY, max_position_embeddings=10_000, num_hidden_layers=1, head_dim=256)
    pages = Pages(of)
    sequences = [pages.sequence() for _ in lengths]
    for sequence, length in zip(sequences, lengths, strict=True):
        sequence.claim(length)
    assert pages.cache(sequences, 1).layers[0].places.alike == alike


def test_pages_may_be_taken_without_autograd_and_given_back_with_it():
    pages = Pages(TINY)
    sequence = pages.sequence()
    with torch.inference_mode():
        Llama(TINY)(torch.tensor([[1, 2]]), pages.cache([sequence], 2))
    sequence.release()
    assert pages.free


def test_a_copy_of_a_decoder_is_refused():
    with pytest.raises(TypeError, match="decoder: it cannot be copied or pickled; make another one from the model"):
        copy.deepcopy(BatchDecoder(Llama(TINY)))


def test_a_decoder_that_was_made_without_autograd_works_with_it():
    with torch.inference_mode():
        decoder = BatchDecoder(Llama(TINY))
    assert decoder(torch.tensor([[1, 2]]), KVCache(TINY, 1)).isfinite().all()
