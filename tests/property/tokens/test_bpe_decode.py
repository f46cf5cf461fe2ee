"""What defines decoding, whatever the ids and the merges. That it equals the naive loop is in every_layer/.

The first three alone determine every result.
"""

import tracemalloc
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.judge.assertions import assert_equal, fail
from tests.judge.subject import REFERENCE

BYTES = (0, 97, 195, 255)
"""So few that ids are made of others more often than not. Of UTF-8 the last two are no whole character."""
DEEP = 5_000
"""Levels of pairs: several times what Python's stack of calls allows."""
LITTLE = 2**20
"""Bytes of memory. What else a call of a few ids needs is far less."""


def _known(merges):
    return [*BYTES, *range(256, 256 + len(merges))]


def _learned(numbers):
    """Merges of bytes and of earlier ids, each pair once."""
    merges = []
    for pair in numbers:
        left, right = (_known(merges)[number % len(_known(merges))] for number in pair)
        if (left, right) not in merges:
            merges.append((left, right))
    return merges


NUMBERS = st.integers(0, 99)
LEARNED = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=7).map(_learned)
IDS = st.lists(NUMBERS, max_size=7)
"""Numbers that become ids once there are merges: see `of`."""


def of(merges, numbers):
    """Ids, one for each number, as many above 255 as there are merges for."""
    return [_known(merges)[number % len(_known(merges))] for number in numbers]


@given(merges=LEARNED, first=IDS, second=IDS)
def test_the_bytes_of_two_texts_follow_one_another(bpe_decode, merges, first, second):
    first, second = of(merges, first), of(merges, second)
    assert_equal(bpe_decode(first + second, merges), bpe_decode(first, merges) + bpe_decode(second, merges))


@given(merges=LEARNED)
def test_an_id_is_what_the_ids_of_its_pair_are(bpe_decode, merges):
    for i, pair in enumerate(merges):
        assert_equal(bpe_decode([256 + i], merges), bpe_decode(list(pair), merges), "merges[i] made id 256 + i")


def test_each_of_the_256_bytes_is_itself(bpe_decode):
    merges = [(0, 255), (256, 128)]
    assert_equal([bpe_decode([byte], merges) for byte in range(256)], [bytes([byte]) for byte in range(256)])


@given(merges=LEARNED, text=st.binary(max_size=9), ids=IDS)
def test_it_undoes_encoding_for_any_bytes(bpe_decode, merges, text, ids):
    # Bytes that are drawn freely hold hardly a pair: so what some ids stand for comes after them.
    text += REFERENCE.bpe_decode(of(merges, ids), merges)
    assert_equal(bpe_decode(REFERENCE.bpe_encode(text, merges), merges), text, "nothing is lost")


@given(merges=LEARNED, ids=IDS)
def test_a_merge_changes_nothing_in_what_the_ids_stand_for(bpe_decode, merges, ids):
    ids = of(merges, ids)
    before = bpe_decode(ids, merges)
    for i, pair in enumerate(merges):
        assert_equal(bpe_decode(REFERENCE.bpe_merge(ids, pair, 256 + i), merges), before)


@given(merges=LEARNED, ids=IDS)
def test_what_is_learned_later_changes_nothing(bpe_decode, merges, ids):
    ids = of(merges, ids)
    needed = max([255, *ids]) - 255
    assert_equal(bpe_decode(ids, merges), bpe_decode(ids, merges[:needed]), "an id is made of smaller ids alone")


@given(merges=LEARNED, ids=IDS, at=st.integers(0, 7), beyond=st.integers(0, 300))
def test_the_ids_end_exactly_where_the_merges_do(bpe_decode, merges, ids, at, beyond):
    ids = of(merges, ids)
    bpe_decode([*ids, 255 + len(merges)], merges)
    for outside in (256 + len(merges) + beyond, -1 - beyond):
        with pytest.raises(IndexError):
            bpe_decode([*ids[:at], outside, *ids[at:]], merges)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_may_be_nested_as_deep_as_there_are_merges(bpe_decode, side):
    """Each id is the one before it and a letter: aa, aab, aaba and so on, or with the new letter in front."""
    letters = [97 + i % 2 for i in range(1, DEEP)]
    before = range(256, 255 + DEEP)
    pairs = zip(before, letters, strict=True) if side == "left" else zip(letters, before, strict=True)
    merges = [(97, 97), *pairs]
    spelled = b"aa" + bytes(letters)
    expected = spelled if side == "left" else bytes(reversed(spelled))
    assert_equal(bpe_decode([255 + DEEP], merges), expected, "a stack of your own, not one call in another")


def test_there_may_be_more_than_65_536_ids(bpe_decode):
    """All pairs of bytes are merged: (255, 0) made 65,536 and (255, 255) made 65,791. One more id is made of these."""
    merges = [*product(range(256), range(256)), (65_536, 65_791)]
    # The function itself: a Subject would copy and compare all merges, as it does in every other test here.
    assert_equal(bpe_decode.function([65_792, 256], merges), b"\xff\x00\xff\xff\x00\x00", "ids kept in 16 bits")


def _doubling(count):
    """256 is aa, and each later id twice the one before it: 256 + k stands for 2^(k + 1) letters."""
    return [(97, 97), *[(i, i) for i in range(256, 255 + count)]]


def test_an_id_may_stand_for_very_many_bytes(bpe_decode):
    merges = _doubling(17)
    assert_equal(bpe_decode([98, 272, 98], merges), b"b" + b"a" * 2**17 + b"b")


def test_ids_that_are_not_asked_for_cost_nothing(bpe_decode):
    # All 24 ids together stand for 2^25 bytes, the two that are asked for stand for 6.
    look_at = "a table of all ids: spell out those that occur, and those that they are made of"
    tracemalloc.start()
    try:
        assert_equal(bpe_decode([256, 257], _doubling(24)), b"a" * 6)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if most > LITTLE:
        fail(f"{most:,} bytes of memory were taken for 6 bytes of text", look_at)
    # Nobody has the memory for what the last of these stand for.
    assert_equal(bpe_decode([256, 257], _doubling(60)), b"a" * 6, look_at)
