"""BPE decode: each id is spelled out as the bytes it stands for, and the bytes of all ids follow one another."""

import re

import pytest

from tests.judge.assertions import assert_equal

THE = [(116, 104), (256, 101)]
"""256 is "th", and 257 is 256 and "e"."""


def test_an_id_below_256_is_that_byte(bpe_decode):
    assert_equal(bpe_decode([72, 105], []), b"Hi", "H is 72 in ASCII, and i is 105")


def test_an_id_above_255_is_the_pair_that_was_merged_into_it(bpe_decode):
    assert_equal(bpe_decode([256], [(97, 98)]), b"ab")


def test_the_left_id_of_a_pair_comes_first(bpe_decode):
    assert_equal(bpe_decode([256], [(98, 97)]), b"ba", "a stack gives back last what was put on it first")


def test_the_first_merge_made_256_and_each_later_one_the_next_id(bpe_decode):
    assert_equal(bpe_decode([258, 256, 257], [(97, 98), (99, 100), (101, 102)]), b"efabcd", "merges[id - 256]")


def test_the_ids_are_read_in_order_with_nothing_between_them(bpe_decode):
    assert_equal(bpe_decode([111, 256, 33], [(97, 98)]), b"oab!")


def test_an_id_may_occur_more_than_once(bpe_decode):
    assert_equal(bpe_decode([256, 97, 256, 97, 97], [(97, 98)]), b"abaabaa")


def test_an_id_of_a_pair_may_stand_for_a_pair_itself(bpe_decode):
    assert_equal(bpe_decode([257], THE), b"the", "257 is 256 and e, and 256 is t and h")


def test_it_may_stand_on_either_side_of_the_pair(bpe_decode):
    # 256 = ab, 257 = c ab, 258 = ab c, 259 = c ab ab c.
    merges = [(97, 98), (99, 256), (256, 99), (257, 258)]
    assert_equal(bpe_decode([257, 258, 259], merges), b"cab" + b"abc" + b"cababc")


def test_each_id_is_the_same_beside_any_other(bpe_decode):
    # Neither "the" nor "th" is put together again: 116 and 104 are the pair of 256, but decoding merges nothing.
    assert_equal(bpe_decode([116, 104, 256, 101, 257], THE), b"th" + b"the" + b"the")


def test_two_ids_may_stand_for_the_same_bytes(bpe_decode):
    # 257 = aa a, 258 = a aa.
    assert_equal(bpe_decode([257, 98, 258], [(97, 97), (256, 97), (97, 256)]), b"aaabaaa")


@pytest.mark.parametrize("merges", [[], THE], ids=["no merges", "two merges"])
def test_no_ids_are_no_bytes(bpe_decode, merges):
    assert_equal(bpe_decode([], merges), b"")


def test_a_byte_may_have_any_value(bpe_decode):
    assert_equal(bpe_decode([*range(256)], []), bytes(range(256)), "bytes, and not the characters of these numbers")


def test_a_character_may_be_spread_over_several_ids(bpe_decode):
    # The euro sign is the bytes E2 82 AC, and é is C3 A9. 256 holds the first two bytes of one, 257 ends one character
    # and begins another.
    merges = [(0xE2, 0x82), (0xAC, 0xC3)]
    assert_equal(bpe_decode([256, 257, 0xA9], merges), "€é".encode(), "join the bytes before anybody reads characters")


@pytest.mark.parametrize(
    "ids",
    [[0xFF, 0xFE], [0xA9], [97, 0xE2, 0x82], [0xE2, 0x82, 97], [0xC0, 0x80], [0xED, 0xA0, 0x80]],
    ids=["never in UTF-8", "no beginning", "no end", "no end before a letter", "overlong", "a surrogate"],
)
def test_bytes_that_are_not_utf_8_stay_as_they_are(bpe_decode, ids):
    assert_equal(bpe_decode(ids, []), bytes(ids), "bytes go through no text")


@pytest.mark.parametrize(
    "text",
    [
        b" a",
        b"  a  b ",
        b"x != y , z . ?",
        b"it 's n't",
        b"a\r\nb\rc\n",
        b"\n\n\ta\n",
        b"a\0b\0",
        b"\x01\x02\x1b[0m\x7f",
        b"\xef\xbb\xbfa",
        b"A\xcc\x8a",
        b"</s>a<s>",
        "\ufffda▁Ġ".encode(),
    ],
)
def test_no_byte_is_tidied_away_or_changed(bpe_decode, text):
    """Spaces, ends of lines, NUL, control characters, a byte order mark, an accent by itself."""
    assert_equal(bpe_decode([*text], []), text, "what an id stands for depends on nothing else")
    merges = [(text[0], text[1])]
    assert_equal(bpe_decode([256, *text[2:]], merges), text, "what an id stands for depends on nothing else")


def test_merges_are_looked_up_in_the_list_of_this_call(bpe_decode):
    first, second = [(97, 98)], [(99, 100)]
    found = [bpe_decode([256], merges) for merges in (first, second, first)]
    assert_equal(found, [b"ab", b"cd", b"ab"], "what is kept between calls: as many merges are not the same merges")


def test_a_list_of_merges_may_have_grown_since_the_last_call(bpe_decode):
    merges = [(97, 98)]
    assert_equal(bpe_decode([256], merges), b"ab")
    merges.append((256, 99))
    assert_equal(bpe_decode([257], merges), b"abc", "what is kept between calls: the same list may have changed")


def test_each_merge_may_double_what_its_id_stands_for(bpe_decode, plot):
    """256 is "aa", and each later id is the one before it twice; or the one before it and one more "a"."""
    made = range(256, 268)
    doubled = [(97, 97), *[(i, i) for i in made[:-1]]]
    one_more = [(97, 97), *[(i, 97) for i in made[:-1]]]
    lengths = {
        "the id before it twice": [len(bpe_decode([i], doubled)) for i in made],
        "the id before it, and one letter": [len(bpe_decode([i], one_more)) for i in made],
    }
    plot(made, lengths, "o-", title="how much an id stands for", xlabel="id", ylabel="bytes", yscale="log")
    assert_equal(lengths["the id before it twice"], [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
    assert_equal(lengths["the id before it, and one letter"], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])


@pytest.mark.parametrize("merges", [[], [(97, 98)], THE], ids=["no merges", "one merge", "two merges"])
def test_an_id_beyond_the_last_merge_is_an_index_error(bpe_decode, merges):
    with pytest.raises(IndexError):
        bpe_decode([97, 256 + len(merges), 98], merges)


@pytest.mark.parametrize("outside", [-1, -2, -3, -256, -257, -258, -(2**63), 2**63, 2**64 + 97])
def test_an_id_that_there_is_not_is_an_index_error_and_never_one_from_the_end(bpe_decode, outside):
    with pytest.raises(IndexError):
        bpe_decode([97, outside], THE)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([97, 258, 300], "bpe_decode: ids must lie in 0..257, got 258"),
        ([-1], "bpe_decode: ids must lie in 0..257, got -1"),
    ],
)
def test_an_id_that_there_is_not_is_named_with_the_range(bpe_decode, ids, sentence):
    with pytest.raises(IndexError, match=f"^{re.escape(sentence)}$"):
        bpe_decode(ids, THE)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("merges", "sentence"),
    [
        ([(256, 97)], "bpe_decode: merges[0] must be a pair of ids in 0..255, got (256, 97)"),
        ([(97, 98), (97, 257)], "bpe_decode: merges[1] must be a pair of ids in 0..256, got (97, 257)"),
        ([(97, 98), (-1, 97)], "bpe_decode: merges[1] must be a pair of ids in 0..256, got (-1, 97)"),
        ([(97, 98), (98, 97), (97, 98)], "bpe_decode: merges[2] is (97, 98), as merges[0] is already"),
    ],
)
def test_merges_that_cannot_have_been_learned_are_refused(bpe_decode, merges, sentence):
    # Also where no id asks for them.
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        bpe_decode([97], merges)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("ids", "merges", "sentence"),
    [
        (b"ab", [], "bpe_decode: ids must be a list, got bytes"),
        (97, [], "bpe_decode: ids must be a list, got int"),
        ([97.0], [], "bpe_decode: ids[0] must be an integer, got 97.0"),
        ([97, True], [], "bpe_decode: ids[1] must be an integer, got True"),
        ([97], [[97, 98]], "bpe_decode: merges[0] must be a tuple of 2, got [97, 98]"),
        ([97], [(97, 98, 99)], "bpe_decode: merges[0] must be a tuple of 2, got (97, 98, 99)"),
        ([97], {(97, 98): 256}, "bpe_decode: merges must be a list, got dict"),
    ],
)
def test_other_values_are_refused_in_a_sentence(bpe_decode, ids, merges, sentence):
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        bpe_decode(ids, merges)
