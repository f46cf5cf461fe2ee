"""BPE train: which pairs of neighbours become one token, and in which order."""

from itertools import pairwise

import pytest

from tests.judge.assertions import assert_equal
from tests.judge.subject import REFERENCE

A, B, C, D = b"abcd"
Y, Z = b"yz"

SENNRICH = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}
"""The words of the paper, without its end of words."""


def test_the_most_frequent_pair_of_neighbours_is_merged_first(bpe_train):
    # b, c stands twice, all others once.
    assert_equal(bpe_train({b"abcbc": 1}, 257), [(B, C)], "the largest count")


def test_a_word_counts_as_often_as_it_occurs(bpe_train):
    assert_equal(bpe_train({b"ab": 2, b"cd": 3}, 257), [(C, D)], "3 against 2")


def test_the_counts_of_all_words_add_up(bpe_train):
    # a, b: 2 + 2 = 4. c, d: 3. b, x and y, a: 2 each.
    assert_equal(bpe_train({b"abx": 2, b"yab": 2, b"cd": 3}, 257), [(A, B)], "4 against 3")


def test_a_pair_counts_wherever_it_stands_in_a_word(bpe_train):
    # a, b: twice in each of 2 words. c, d: 3.
    assert_equal(bpe_train({b"ab-ab": 2, b"cd": 3}, 257), [(A, B)], "4 against 3: not once a word")


def test_the_pair_has_an_order(bpe_train):
    # a, b: 2. b, a: 2. c, d: 3.
    assert_equal(bpe_train({b"ab": 2, b"ba": 2, b"cd": 3}, 257), [(C, D)], "a, b and b, a are two pairs")


def test_the_last_pair_of_a_word_counts_as_well(bpe_train):
    # b, c: 5. a, b: 3.
    assert_equal(bpe_train({b"abc": 3, b"-bc": 2}, 257), [(B, C)], "the pair at the end")


def test_the_first_merge_makes_id_256_which_is_merged_like_any_other(bpe_train):
    # b, a becomes 256. Then c, 256 stands as often as d, c and is smaller: it becomes 257. Then d, 257.
    assert_equal(bpe_train({b"dcba": 3}, 259), [(B, A), (C, 256), (D, 257)], "merges[i] makes the id 256 + i")


def test_ids_begin_at_256_however_few_bytes_occur(bpe_train):
    assert_equal(bpe_train({b"\x01\x00\x01": 1}, 258), [(0, 1), (1, 256)], "all 256 bytes have an id")


def test_a_merge_is_made_everywhere(bpe_train):
    # After a, b: 256, 256 in one word, 256, c in the other, as often.
    words = {b"abab": 2, b"abc": 2}
    assert_equal(bpe_train(words, 300), [(A, B), (256, C), (256, 256)], "each occurrence in each word")


def test_a_merge_takes_from_the_counts_of_its_neighbours(bpe_train):
    # a, b: 3 + 2 = 5. b, c: 3 + 1 = 4. y, z: 2. Once a, b is one token, b, c stands only where no a is before it: 1.
    words = {b"abc": 3, b"ab": 2, b"bc": 1, b"yz": 2}
    assert_equal(bpe_train(words, 300), [(A, B), (256, C), (Y, Z), (B, C)], "count again, or take away what is gone")


def test_a_count_that_has_fallen_still_counts(bpe_train):
    # b, c falls from 4 to 2, and is the most frequent pair then.
    words = {b"abc": 2, b"ab": 3, b"bc": 2, b"yz": 1}
    assert_equal(bpe_train(words, 300), [(A, B), (B, C), (256, C), (Y, Z)], "2 for b, c and 256, c; then 1")


def test_both_neighbours_of_a_new_token_form_new_pairs(bpe_train):
    # b, c: 4. Then 256, d: 3 and a, 256: 2. Then a, 257: 2.
    words = {b"abcd": 2, b"bcd": 1, b"bc": 1}
    assert_equal(bpe_train(words, 300), [(B, C), (256, D), (A, 257)], "what follows the new token")
    # b, c: 4. Then a, 256: 3 and 256, d: 2. Then 257, d: 2.
    words = {b"abcd": 2, b"abc": 1, b"bc": 1}
    assert_equal(bpe_train(words, 300), [(B, C), (A, 256), (257, D)], "what is before the new token")


def test_of_equally_frequent_pairs_the_smallest_is_first(bpe_train):
    words = {b"bz": 1, b"az": 1, b"by": 1}
    assert_equal(bpe_train(words, 300), [(A, Z), (B, Y), (B, Z)], "by the left id, then by the right")


def test_the_smallest_pair_is_that_of_the_smallest_ids(bpe_train):
    # "aa" becomes 256, which is above all bytes, though the text "aa" is before "y".
    words = {b"aa": 2, b"aab": 1, b"yz": 1}
    assert_equal(bpe_train(words, 300), [(A, A), (Y, Z), (256, B)], "ids, not the bytes that they stand for")
    words = {b"aa": 2, b"caa": 1, b"cz": 1}
    assert_equal(bpe_train(words, 300), [(A, A), (C, Z), (C, 256)], "the right ids, too")


def test_a_more_frequent_pair_goes_before_a_smaller_one(bpe_train):
    assert_equal(bpe_train({b"ab": 9, b"yz": 10}, 300), [(Y, Z), (A, B)], "10 is more than 9")


def test_no_pair_reaches_from_one_word_into_the_next(bpe_train):
    # a and b stand side by side only if the words are written one behind the other.
    assert_equal(bpe_train({b"ca": 5, b"bd": 5}, 300), [(B, D), (C, A)], "each word by itself")
    assert_equal(bpe_train({b"ab": 5}, 300), [(A, B)], "nor from a word into itself")


def test_in_a_run_every_position_counts(bpe_train):
    # a, a stands twice in "aaa", which occurs twice: 4. y, z: 3.
    assert_equal(bpe_train({b"aaa": 2, b"yz": 3}, 257), [(A, A)], "4 against 3: overlapping ones too")


@pytest.mark.parametrize(
    ("length", "merges"),
    [
        # 256, a
        (3, [(A, A), (256, A)]),
        # 256, 256
        (4, [(A, A), (256, 256)]),
        # 256, 256, a: both pairs once, and 256, a is the smaller one. Then 256, 257.
        (5, [(A, A), (256, A), (256, 257)]),
        # 256, 256, 256: then 257, 256.
        (6, [(A, A), (256, 256), (257, 256)]),
        # 256, 256, 256, a: 256, 256 twice. 257, 256, a: both once. 257, 258.
        (7, [(A, A), (256, 256), (256, A), (257, 258)]),
    ],
)
def test_a_run_is_merged_from_the_left_without_overlap(bpe_train, length, merges):
    assert_equal(bpe_train({b"a" * length: 1}, 300), merges, "aaa is 256, a")


def test_a_pair_that_stands_once_is_merged_too(bpe_train):
    assert_equal(bpe_train({b"ab": 1}, 300), [(A, B)], "there is no least count")


def test_it_ends_with_as_many_ids_as_asked_for(bpe_train):
    for merges in range(4):
        assert_equal(bpe_train({b"dcba": 1}, 256 + merges), [(B, A), (C, 256), (D, 257)][:merges], "vocab - 256 merges")


def test_it_ends_sooner_where_nothing_is_left_to_merge(bpe_train):
    assert_equal(bpe_train({b"ab": 2, b"yz": 1}, 1000), [(A, B), (Y, Z)], "every word is one token")


@pytest.mark.parametrize("words", [{}, {b"": 7}, {b"a": 7, b"": 1, b"b": 1}])
def test_words_without_two_bytes_teach_nothing(bpe_train, words):
    assert_equal(bpe_train(words, 300), [], "no pair, no merge")


def test_words_are_bytes_and_not_text(bpe_train):
    # "é" is two bytes in UTF-8, of which "ê" shares the first. The last word is not UTF-8, and the others are blanks.
    assert_equal(bpe_train({"é".encode(): 2, "ê".encode(): 1}, 300), [(0xC3, 0xA9), (0xC3, 0xAA)])
    assert_equal(bpe_train({b"\xff\x80": 1, b"\x7f\x80": 1}, 300), [(0x7F, 0x80), (0xFF, 0x80)], "0 to 255")
    assert_equal(bpe_train({b"\n ": 1, b" \x00": 1}, 300), [(0x0A, 0x20), (0x20, 0x00)], "no byte is special")


def test_ids_are_compared_whole(bpe_train):
    assert_equal(bpe_train({b"\x01\x02": 2, b"\x0b\x02": 1}, 300), [(1, 2), (11, 2)], "ids, not their digits")


def test_counts_may_be_large(bpe_train):
    # 32 bits hold nothing from 2^31 or 2^32 on, and a float no odd number above 2^53.
    for much in (2**31, 2**32, 2**53):
        words = {b"ab": much, b"cd": 5, b"yz": much + 1}
        assert_equal(bpe_train(words, 300), [(Y, Z), (A, B), (C, D)], f"{much + 1}, {much} and 5")


@pytest.mark.refusal
@pytest.mark.parametrize("vocab", [255, 0, -1])
def test_a_vocab_that_does_not_hold_the_bytes_is_refused(bpe_train, vocab):
    with pytest.raises(ValueError, match=f"^bpe_train: vocab must be at least 256, got {vocab}$"):
        bpe_train({b"ab": 1}, vocab)


@pytest.mark.refusal
@pytest.mark.parametrize("count", [0, -2])
@pytest.mark.parametrize("word", [b"ab", b""])
def test_a_word_that_does_not_occur_is_refused(bpe_train, word, count):
    sentence = f"bpe_train: the count of each word must be at least 1, got {count} for {word!r}"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        bpe_train({b"cd": 1, word: count}, 300)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("words", "vocab", "sentence"),
    [
        ([b"ab"], 300, "bpe_train: words must be a dict, got list"),
        ({"ab": 1}, 300, "bpe_train: each key of words must be bytes, got 'ab'"),
        ({b"ab": 1.5}, 300, "bpe_train: words[b'ab'] must be an integer, got 1.5"),
        ({b"ab": 1}, 300.0, "bpe_train: vocab must be an integer, got 300.0"),
    ],
)
def test_other_values_are_refused_in_a_sentence(bpe_train, words, vocab, sentence):
    with pytest.raises(TypeError) as error:
        bpe_train(words, vocab)
    assert str(error.value) == sentence


def test_the_words_of_the_paper(bpe_train):
    # e, s and s, t: 6 + 3 = 9. Then es, t: 9. l, o and o, w: 5 + 2 = 7. Then lo, w: 7. e, w and n, e and w, est: 6.
    # Then n, ew and ew, est: 6. Then new, est: 6.
    e, el, n, o, s, t, w = b"elnostw"
    es, est, lo, _, ew, new, newest = range(256, 263)
    merges = [(e, s), (es, t), (el, o), (lo, w), (e, w), (n, ew), (new, est)]
    assert_equal(bpe_train(SENNRICH, newest + 1), merges)


def test_each_merge_saves_as_many_tokens_as_its_pair_stands_in_the_words(bpe_train, plot):
    """The first merges save most; what is left is rare."""
    merges = bpe_train(SENNRICH, 300)
    tokens = [
        sum(count * len(REFERENCE.bpe_encode(word, merges[:learned])) for word, count in SENNRICH.items())
        for learned in range(len(merges) + 1)
    ]
    made = [REFERENCE.bpe_decode([256 + i], merges).decode() for i in range(len(merges))]
    saved = [before - after for before, after in pairwise(tokens)]
    plot(range(len(tokens)), {"tokens": tokens}, "o-", title="79 bytes become 16 tokens", xlabel="merges")
    plot(range(1, len(tokens)), {"saved": saved}, "bars", title="tokens that each merge saves", xlabel=" ".join(made))
    # No pair of these words overlaps itself, so that each merge saves its count. At the end each word is one token.
    assert_equal(saved, [9, 9, 7, 7, 6, 6, 6, 3, 3, 3, 2, 2], "the largest count first")
