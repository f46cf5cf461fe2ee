"""Pages of keys and values: sequences share them out, come and go, and compute what they would in a cache of their
own."""

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from llama.model.batch_decoder import BatchDecoder
from llama.model.config import LlamaConfig
from llama.model.kv_cache import KVCache
from llama.model.llama import Llama
from llama.model.paged_cache import Pages

SMALL = LlamaConfig(
    vocab_size=11,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=30,
    initializer_range=0.3,
)


@torch.no_grad()
def _logits(model, ids):
    return model(torch.tensor([ids]), KVCache(SMALL, 1))[0, -1]


class Serving(RuleBasedStateMachine):
    """Sequences that read tokens, alone and together, are rewound and released, in any order."""

    compute = staticmethod(lambda model: model)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.model, self.pages, self.held = Llama(SMALL).eval(), Pages(SMALL, page_size=3), []
        self.computed = self.compute(self.model)

    def _read(self, texts, new):
        cache = self.pages.cache([sequence for sequence, _ in texts], len(new[0]))
        with torch.no_grad():
            logits = self.computed(torch.tensor(new), cache)[:, -1]
        for (_, seen), tokens, row in zip(texts, new, logits, strict=True):
            seen += tokens
            torch.testing.assert_close(row, _logits(self.model, seen))

    @rule(tokens=st.lists(st.integers(0, 10), min_size=1, max_size=9))
    def begin(self, tokens):
        if len(self.held) < 4:
            self.held.append((self.pages.sequence(), []))
            self._read(self.held[-1:], [tokens])

    @rule(token=st.integers(0, 10), skip=st.integers(0, 3))
    def read_a_token_each(self, token, skip):
        texts = [text for text in self.held if len(text[1]) < 30][skip:]
        if texts:
            self._read(texts, [[(token + i) % 11] for i in range(len(texts))])

    @rule(which=st.integers(0, 3), tokens=st.lists(st.integers(0, 10), min_size=2, max_size=7))
    def read_a_chunk(self, which, tokens):
        if which < len(self.held) and len(self.held[which][1]) + len(tokens) <= 30:
            self._read([self.held[which]], [tokens])

    @rule(which=st.integers(0, 3), length=st.integers(0, 30))
    def rewind(self, which, length):
        if which < len(self.held) and length <= len(self.held[which][1]):
            sequence, seen = self.held[which]
            sequence.rewind(length)
            del seen[length:]

    @rule(which=st.integers(0, 3))
    def release(self, which):
        if which < len(self.held):
            self.held.pop(which)[0].release()

    @invariant()
    def each_page_is_free_or_belongs_to_one_sequence(self):
        taken = [page for sequence, _ in self.held for page in sequence.pages]
        assert sorted(taken + self.pages.free) == list(range(self.pages.keys.shape[1]))
        assert all(len(sequence.pages) == -(-len(seen) // 3) for sequence, seen in self.held)


class Decoding(Serving):
    """The same, computed by the decoder of several tokens."""

    compute = BatchDecoder


@pytest.mark.parametrize("machine", [Serving, Decoding])
def test_sequences_that_come_and_go_have_the_logits_that_they_have_alone(machine):
    run_state_machine_as_test(machine)


def test_a_cache_that_is_rewound_computes_what_it_computed_before():
    torch.manual_seed(1)
    model, cache, ids = Llama(SMALL).eval(), KVCache(SMALL, 1), torch.arange(8)[None]
    with torch.no_grad():
        first = model(ids, cache)
        cache.rewind(3)
        torch.testing.assert_close(model(ids[:, 3:], cache), first[:, 3:])


def test_what_does_not_fit_into_the_context_is_refused_and_changes_nothing():
    pages = Pages(SMALL)
    first, second = pages.sequence(), pages.sequence()
    pages.cache([first], 25)
    with pytest.raises(ValueError, match="cache: 31 positions do not fit into a context of 30"):
        pages.cache([second, first], 6)
    assert (first.length, second.length, second.pages) == (25, 0, [])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Pages(SMALL, page_size=0), "pages: page_size must be at least 1, got 0"),
        (lambda: Pages(SMALL).sequence().rewind(1), "cache: it can be rewound to 0..0 positions, got 1"),
        (lambda: KVCache(SMALL, 1).rewind(-1), "cache: it can be rewound to 0..0 positions, got -1"),
        (lambda: _pass(1, 1, torch.zeros(2, 1)), "cache: it was made for 1 sequences, got 2"),
        (lambda: _pass(2, 3, torch.zeros(2, 1)), "cache: it was made for 3 tokens of each sequence, got 1"),
        (lambda: _pass(1, 1, torch.zeros(1, 1), torch.float64), "cache: it was made for float64, got float32"),
    ],
)
def test_what_a_cache_was_not_made_for_is_refused(make, sentence):
    with pytest.raises(ValueError, match=r"^(cache|pages): ") as refused:
        make()
    assert str(refused.value) == sentence


def _pass(sequences, seq, ids, dtype=torch.float32):
    pages = Pages(SMALL, dtype)
    return Llama(SMALL)(ids.long(), pages.cache([pages.sequence() for _ in range(sequences)], seq))
