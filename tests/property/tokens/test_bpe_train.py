"""What defines training, whatever the words. That it equals the naive loop is in every_layer/."""

import json
import random
import re
from collections import Counter
from itertools import pairwise

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from llama.layers import layer_module
from tests.judge.assertions import assert_equal, fail
from tests.judge.subject import REFERENCE

BYTES = 256


def words_of(letters):
    """A few words of so few letters that pairs, runs and ties are common, with how often they occur."""
    word = st.lists(st.sampled_from(letters), max_size=8).map(bytes)
    return st.dictionaries(word, st.integers(1, 5), max_size=4)


WORDS = words_of(b"abc")
VOCAB = st.integers(BYTES, BYTES + 12)


def until_nothing_is_left(words):
    """A vocab that these words cannot fill: each merge takes at least one token from one of them."""
    return BYTES + 1 + sum(map(len, words))


def counts_after(words, merges):
    """How often each pair stands in the words, once they are written with these merges."""
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(REFERENCE.bpe_encode(word, merges)):
            counts[pair] += count
    return counts


@given(words=WORDS, vocab=VOCAB)
def test_each_merge_is_the_most_frequent_pair_of_its_time_and_of_equal_ones_the_smallest(bpe_train, words, vocab):
    merges = bpe_train(words, vocab)
    for i, pair in enumerate(merges):
        counts = counts_after(words, merges[:i])
        most = max(counts.values(), default=0)
        best = min((pair for pair, count in counts.items() if count == most), default=None)
        if pair != best:
            fail(f"merges[{i}] is {pair}, which stands {counts[pair]} times; {best} stands {most} times", "counts")


@given(words=WORDS, vocab=VOCAB)
def test_it_ends_where_the_vocab_is_full_or_nothing_is_left(bpe_train, words, vocab):
    merges = bpe_train(words, vocab)
    if len(merges) > vocab - BYTES:
        fail(f"{len(merges)} merges and {BYTES} bytes are more than vocab={vocab} ids", "never more than vocab - 256")
    if len(merges) < vocab - BYTES and (left := counts_after(words, merges)):
        fail(f"{len(merges)} merges, though {min(left)} can be merged", "vocab - 256 merges, while there are pairs")


@given(words=WORDS, vocab=VOCAB)
def test_a_pair_is_of_ids_that_are_there_already_and_is_merged_once(bpe_train, words, vocab):
    merges = bpe_train(words, vocab)
    for i, (left, right) in enumerate(merges):
        if not (0 <= left < BYTES + i and 0 <= right < BYTES + i):
            fail(f"merges[{i}] is {(left, right)}", f"ids below {BYTES + i}")
    assert_equal(len(set(merges)), len(merges), "a pair that has been merged stands nowhere any more")


@given(words=WORDS, vocab=VOCAB)
def test_no_merge_makes_more_tokens_than_the_one_before(bpe_train, words, vocab):
    """A pair with a new token in it stands no more often than that token, and all others have lost."""
    merges = bpe_train(words, vocab)
    counts = [counts_after(words, merges[:i])[pair] for i, pair in enumerate(merges)]
    assert_equal(counts, sorted(counts, reverse=True), "how often each pair stood when it was merged")


@given(words=WORDS, vocab=VOCAB, more=st.integers(0, 8))
def test_a_larger_vocab_goes_on_where_a_smaller_one_ends(bpe_train, words, vocab, more):
    assert_equal(bpe_train(words, vocab + more)[: vocab - BYTES], bpe_train(words, vocab), "one merge after the other")


@given(words=WORDS, vocab=VOCAB, times=st.sampled_from([2, 3, 1000, 2**40]))
def test_counts_matter_in_proportion(bpe_train, words, vocab, times):
    more_often = {word: times * count for word, count in words.items()}
    assert_equal(bpe_train(more_often, vocab), bpe_train(words, vocab), "every word so many times as often")


@given(words=WORDS, vocab=VOCAB, seed=st.integers(0, 2**16))
def test_the_order_of_the_words_plays_no_part(bpe_train, words, vocab, seed):
    shuffled = dict(random.Random(seed).sample(sorted(words.items()), len(words)))
    assert_equal(bpe_train(shuffled, vocab), bpe_train(words, vocab), "ties are broken by ids")


@given(words=WORDS, vocab=VOCAB, count=st.integers(1, 10**6))
def test_words_without_two_bytes_change_nothing(bpe_train, words, vocab, count):
    more = {b"": count, **words, b"a": count, b"z": count}
    assert_equal(bpe_train(more, vocab), bpe_train({w: n for w, n in words.items() if len(w) > 1}, vocab), "no pair")


@given(words=WORDS, others=words_of(b"xyz"))
def test_words_that_share_no_letter_have_no_influence_on_each_other(bpe_train, words, others):
    """Trained together, they learn what each learns alone, in the same order, if the ids of the others are left out."""
    everything = words | others
    merges = bpe_train(everything, until_nothing_is_left(everything))
    for alone, letters in ((words, b"abc"), (others, b"xyz")):
        ids = {byte: byte for byte in letters}
        found = []
        for made, pair in enumerate(merges, start=BYTES):
            if pair[0] in ids:
                found.append((ids[pair[0]], ids.get(pair[1])))
                ids[made] = BYTES + len(found) - 1
        assert_equal(found, bpe_train(alone, until_nothing_is_left(alone)), "each word by itself")


@given(words=WORDS, vocab=VOCAB, letters=st.sets(st.integers(0, 255), min_size=3, max_size=3).map(sorted))
def test_bytes_are_numbers_and_nothing_else(bpe_train, words, vocab, letters):
    """Other bytes in the same order give the same merges: blanks, zeros, and bytes that are no text."""
    table = dict(zip(b"abc", letters, strict=True))
    renamed = {bytes(table[byte] for byte in word): count for word, count in words.items()}
    merges = [(table.get(left, left), table.get(right, right)) for left, right in bpe_train(words, vocab)]
    assert_equal(bpe_train(renamed, vocab), merges, f"the bytes {', '.join(map(str, letters))}")


def test_it_learns_what_a_library_learns_from_a_real_text(bpe_train):
    """From the contracts of two layers, in which hundreds of pairs are equally frequent."""
    text = "".join(layer_module(name).__doc__ for name in ("attention", "sample"))
    words = Counter(re.findall(rb" ?\w+|\s+|[^\w\s]+", text.encode()))
    assert_equal(bpe_train(dict(words), BYTES + 150), _by_the_library(words, BYTES + 150))


def test_it_learns_what_a_library_learns_from_a_long_word(bpe_train):
    """Of tokens that are merges of merges, with ids beyond 512, some of which stand for a hundred bytes."""
    word = random.Random(17).randbytes(300)
    assert_equal(bpe_train({word: 1}, BYTES + len(word)), _by_the_library(Counter([word]), BYTES + len(word)))


def _by_the_library(words, vocab):
    """The merges of `tokenizers`, which is given each byte as the character of that number, so that ids are bytes."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2400", "removed")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, initial_alphabet=[chr(byte) for byte in range(BYTES)]
    )
    tokenizer.train_from_iterator([word.decode("latin-1") for word in words.elements()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [tuple(model["vocab"][part] for part in pair) for pair in model["merges"]]
