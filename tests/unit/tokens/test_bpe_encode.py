"""BPE encode: the bytes of a word are merged, what was learned first before what was learned later.

A few letters as bytes: a is 97, b is 98, c is 99, d is 100.
"""

import re

import pytest

from tests.judge.assertions import assert_equal

A, B, C, D = b"abcd"


def test_without_merges_each_byte_is_a_token(bpe_encode):
    assert_equal(bpe_encode(b"cab", []), [99, 97, 98])


def test_the_first_merge_makes_the_id_256(bpe_encode):
    assert_equal(bpe_encode(b"abc", [(A, B)]), [256, 99], "merges[0] makes 256, since 0..255 are the bytes")


def test_the_merge_after_it_makes_the_next_id(bpe_encode):
    assert_equal(bpe_encode(b"abcd", [(A, B), (C, D)]), [256, 257])


def test_a_merge_is_made_wherever_its_pair_stands(bpe_encode):
    # At the beginning, in the middle and at the end.
    assert_equal(bpe_encode(b"abcabdab", [(A, B)]), [256, 99, 256, 100, 256])


def test_what_was_made_is_merged_further(bpe_encode):
    # a b c -> 256 c -> 257
    assert_equal(bpe_encode(b"abc", [(A, B), (256, C)]), [257], "until no two neighbours are in merges")


def test_it_is_merged_with_what_stands_before_it_too(bpe_encode):
    # c a b -> c 256 -> 257
    assert_equal(bpe_encode(b"cab", [(A, B), (C, 256)]), [257], "both neighbours of a new token are new neighbours")


def test_of_two_merges_that_are_possible_the_first_learned_is_made(bpe_encode):
    # Both want the b of abc.
    assert_equal(bpe_encode(b"abc", [(A, B), (B, C)]), [256, 99])
    assert_equal(bpe_encode(b"abc", [(B, C), (A, B)]), [97, 256], "the place in merges, and not the place in the word")


def test_merges_that_differ_in_their_order_alone_are_different_merges(bpe_encode):
    # As many as before, the same ones, and the first and the last at the same place.
    assert_equal(bpe_encode(b"abc", [(D, D), (A, B), (B, C), (D, C)]), [257, 99])
    assert_equal(bpe_encode(b"abc", [(D, D), (B, C), (A, B), (D, C)]), [97, 257], "what is kept from the call before")


def test_what_was_learned_first_goes_first_even_where_it_becomes_possible_late(bpe_encode):
    # a b c d -> a 256 d: from now on a bc and bc d are possible, and of these the first learned is made.
    assert_equal(bpe_encode(b"abcd", [(B, C), (A, 256), (256, D)]), [257, 100])
    assert_equal(bpe_encode(b"abcd", [(B, C), (256, D), (A, 256)]), [97, 257])
    # a b c d a -> 256 c d a: 257 = ab c is possible only now, but was learned before 258 = c d.
    assert_equal(bpe_encode(b"abcda", [(A, B), (256, C), (C, D)]), [257, 100, 97], "look again after each merge")


def test_a_token_that_was_merged_is_nobodys_neighbour_any_more(bpe_encode):
    # ab takes the a away from ca.
    assert_equal(bpe_encode(b"cab", [(A, B), (C, A)]), [99, 256], "pairs that were there before a merge")


def test_the_pair_has_an_order(bpe_encode):
    assert_equal(bpe_encode(b"ba", [(A, B)]), [98, 97])


def test_a_word_that_has_a_token_of_its_own_may_be_encoded_otherwise(bpe_encode):
    # 258 would be abc. But bc goes first, and after that no ab is there for it.
    merges = [(B, C), (A, B), (257, C)]
    assert_equal(bpe_encode(b"abc", merges), [97, 256], "tokens are made by merges alone")
    assert_equal(bpe_encode(b"abcd", merges), [97, 256, 100], "a bc spells abc, but 258 is ab c")


def test_the_result_is_not_always_the_fewest_tokens(bpe_encode):
    # ab and cd would be two; bc goes first and leaves three.
    assert_equal(bpe_encode(b"abcd", [(B, C), (A, B), (C, D)]), [97, 256, 100], "no search: one merge after another")


def test_how_often_a_pair_stands_in_the_word_plays_no_part(bpe_encode):
    # ab stands there three times, bc once: but bc was learned first.
    assert_equal(bpe_encode(b"ababcab", [(B, C), (A, B)]), [257, 97, 256, 257])


def test_ids_of_the_same_bytes_are_different_tokens(bpe_encode):
    # ab and ba are 256 and 257. Both 258 and 259 spell aba: as ab a, or as a ba. aba is ab a.
    assert_equal(bpe_encode(b"aba", [(A, B), (B, A), (256, A), (A, 257)]), [258])
    assert_equal(
        bpe_encode(b"aba", [(A, B), (B, A), (A, 257), (256, A)]), [259], "a pair of ids, not of what they spell"
    )


@pytest.mark.parametrize(("length", "ids"), [(2, [256]), (3, [256, 97]), (4, [256, 256]), (5, [256, 256, 97])])
def test_a_run_of_one_letter_is_cut_into_pairs_from_the_left(bpe_encode, length, ids):
    assert_equal(bpe_encode(b"a" * length, [(A, A)]), ids, "without overlap")


def test_with_doubled_letters_a_run_is_written_like_a_binary_number(bpe_encode, plot):
    # 256, 257 and 258 are 2, 4 and 8 letters: 13 = 8 + 4 + 1 letters are three tokens. There is no 16: two eights.
    doubled = [(A, A), (256, 256), (257, 257)]
    assert_equal(bpe_encode(b"a" * 13, doubled), [258, 257, 97])
    lengths = range(33)
    tokens = [len(bpe_encode(b"a" * length, doubled)) for length in lengths]
    plot(lengths, {"tokens": tokens}, "o-", title="tokens of aaa... with merges to 2, 4 and 8", xlabel="letters")
    assert_equal(tokens, [length // 8 + (length % 8).bit_count() for length in lengths])


def test_with_each_merge_that_is_known_the_tokens_grow(bpe_encode, imshow):
    # 256 is an, 257 is ban, 258 is ana, 259 is all of it.
    merges = [(A, 110), (B, 256), (256, A), (257, 258)]
    lengths = [1] * 256 + [2, 3, 3, 6]
    stages = [bpe_encode(b"banana", merges[:known]) for known in range(5)]
    assert_equal(
        stages, [[98, 97, 110, 97, 110, 97], [98, 256, 256, 97], [257, 256, 97], [257, 258], [259]], "from row to row"
    )
    made = [[max(0, i - 255) for i in ids for _ in range(lengths[i])] for ids in stages]
    imshow(made, title="which merge made the token (0: a byte)", xlabel="byte of banana", ylabel="merges known")


@pytest.mark.parametrize("merges", [(), ((A, A), (256, A))], ids=["no merges", "two merges"])
def test_the_empty_word_has_no_tokens_and_one_byte_is_one(bpe_encode, merges):
    assert_equal(bpe_encode(b"", [*merges]), [], "there is no pair to look for")
    assert_equal(bpe_encode(b"a", [*merges]), [97])


def test_merges_that_do_not_occur_change_nothing(bpe_encode):
    assert_equal(bpe_encode(b"abab", [(C, D), (A, B), (256, C)]), [257, 257], "ids are counted by place in merges")


def test_it_reads_bytes_and_not_letters(bpe_encode):
    # é is the two bytes 195 and 169.
    assert_equal(bpe_encode("é".encode(), []), [195, 169])
    assert_equal(bpe_encode("né".encode(), [(195, 169)]), [110, 256], "bytes, whatever they spell")


def test_each_of_the_256_bytes_is_a_token(bpe_encode):
    # 0 and 255 as well, at both ends of the word.
    assert_equal(bpe_encode(bytes(range(256)), []), [*range(256)])
    assert_equal(bpe_encode(bytes(range(256))[::-1], []), [*range(256)][::-1], "no byte stands for something else")


def test_bytes_that_are_no_text_are_encoded_too(bpe_encode):
    # 255 stands in no UTF-8, and 195 not alone.
    assert_equal(bpe_encode(bytes([255, 0, 195]), [(255, 0)]), [256, 195])


def test_spaces_are_bytes_like_any_other(bpe_encode):
    assert_equal(bpe_encode(b" a \n", [(32, A), (32, 10)]), [256, 257], "words begin with their space")


def test_a_word_may_be_long(bpe_encode):
    # c goes before, so that each pair begins at an odd place.
    assert_equal(bpe_encode(b"c" + b"ab" * 1500, [(A, B)]), [99] + [256] * 1500, "one word, however long")


def test_merges_may_be_nested_more_deeply_than_python_calls(bpe_encode):
    # Each takes one more b: 256 is ab, 257 is abb, and the last, 1,255, is all of the word.
    merges = [(A, B), *((made, B) for made in range(256, 256 + 999))]
    assert_equal(bpe_encode(b"a" + b"b" * 1000, merges), [256 + 999], "a call for each merge")


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("word", "merges", "sentence"),
    [
        ("abc", [], "bpe_encode: word must be bytes, got 'abc'"),
        (b"abc", {}, "bpe_encode: merges must be a list, got dict"),
        (b"abc", [[A, B]], "bpe_encode: merges[0] must be a tuple of 2, got [97, 98]"),
        (b"abc", [(b"a", b"b")], "bpe_encode: merges[0][0] must be an integer, got b'a'"),
    ],
)
def test_other_values_are_refused_in_a_sentence(bpe_encode, word, merges, sentence):
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        bpe_encode(word, merges)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("merges", "sentence"),
    [
        ([(A, 256)], "bpe_encode: merges[0] must be a pair of ids in 0..255, got (97, 256)"),
        ([(A, B), (257, A)], "bpe_encode: merges[1] must be a pair of ids in 0..256, got (257, 97)"),
        ([(-1, A)], "bpe_encode: merges[0] must be a pair of ids in 0..255, got (-1, 97)"),
        ([(A, B), (B, C), (A, B)], "bpe_encode: merges[2] is (97, 98), as merges[0] is already"),
    ],
)
def test_merges_that_cannot_be_are_refused_in_a_sentence(bpe_encode, merges, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        bpe_encode(b"abc", merges)


def test_ids_beyond_16_bits_are_not_taken_for_others(bpe_encode):
    # All pairs of bytes are learned, which makes 65,792 ids. In 16 bits 65,634 would be 98, as would 97 and a carry.
    pairs = [(left, right) for left in range(256) for right in range(256)]
    learned = [*pairs, (A, 65536 + B), (65536 + B, 65536 + B)]
    assert_equal(bpe_encode(b"bb", learned), [256 + 256 * B + B], "a pair of two numbers, not one made of both")
