"""What defines an encoding, whatever the word and the merges. That it equals the naive loop is in every_layer/."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tokenizers.models import BPE

from tests.judge.assertions import assert_equal, fail
from tests.judge.subject import FORMULA

BYTES = 256
FEW = st.sampled_from([b"a", b"ab"])
"""So few letters that runs are common, and ids that spell the same."""
APART = b"z"
"""A byte that no merge has in it."""
TEXT = b"""
Look in thy glass, and tell the face thou viewest
Now is the time that face should form another;
Whose fresh repair if now thou not renewest,
Thou dost beguile the world, unbless some mother.
For where is she so fair whose unear'd womb
Disdains the tillage of thy husbandry?
Or who is he so fond will be the tomb
Of his self-love, to stop posterity?
Thou art thy mother's glass, and she in thee
Calls back the lovely April of her prime:
So thou through windows of thine age shalt see,
Despite of wrinkles, this thy golden time.
"""
"""Shakespeare, sonnet 3."""


def words_of(letters):
    return st.lists(st.sampled_from(letters), max_size=16).map(bytes)


@st.composite
def merges_of(draw, letters):
    """Pairs of letters and of earlier ids, no two alike: also such as no training makes."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        known = st.sampled_from([*letters, *range(BYTES, BYTES + len(found))])
        if (pair := draw(st.tuples(known, known))) not in found:
            found.append(pair)
    return found


CALLS = FEW.flatmap(lambda letters: st.tuples(words_of(letters), merges_of(letters)))
"""A word, and merges of its letters."""


def spelled(ids, merges):
    """The bytes of these ids; what is no id is a question mark."""
    known = dict(enumerate(spelling(merges)))
    return b"".join(known.get(i, b"?") for i in ids)


def spelling(merges):
    """The bytes of each id."""
    known = [bytes([byte]) for byte in range(BYTES)]
    for left, right in merges:
        known.append(known[left] + known[right])
    return known


def merged(ids, pair, new):
    """One merge: from the left, without overlap."""
    result = []
    for i in ids:
        if result and (result[-1], i) == pair:
            result[-1] = new
        else:
            result.append(i)
    return result


@given(call=CALLS)
def test_the_ids_spell_the_word(bpe_encode, call):
    word, merges = call
    assert_equal(spelled(bpe_encode(word, merges), merges), word, "nothing is lost, added or turned round")


@given(word=st.binary(max_size=12), data=st.data())
def test_any_bytes_are_a_word(bpe_encode, word, data):
    merges = data.draw(merges_of(word or b"a"))
    assert_equal(spelled(bpe_encode(word, merges), merges), word, "bytes, whether they are a text or not")


@given(call=CALLS)
def test_no_two_neighbours_are_in_merges(bpe_encode, call):
    word, merges = call
    ids = bpe_encode(word, merges)
    if left := [pair for pair in pairwise(ids) if pair in merges]:
        fail(f"{left[0]} still stands in {ids}", "until no pair is left")


@given(call=CALLS)
def test_there_are_no_ids_but_bytes_and_merges(bpe_encode, call):
    word, merges = call
    if beyond := [i for i in bpe_encode(word, merges) if not 0 <= i < BYTES + len(merges)]:
        fail(f"{beyond[0]} is no id of {len(merges)} merges", "merges[i] makes 256 + i")


@given(call=CALLS)
def test_at_each_step_the_first_learned_pair_that_is_there_is_merged(bpe_encode, call):
    """Here one occurrence at a time: after it, the same pair is the first learned until it stands nowhere."""
    word, merges = call
    ids = list(word)
    while there := [(merges.index(pair), at) for at, pair in enumerate(pairwise(ids)) if pair in merges]:
        learned, at = min(there)
        ids[at : at + 2] = [BYTES + learned]
    assert_equal(bpe_encode(word, merges), ids, "the first in merges, wherever it stands")


@given(call=CALLS, data=st.data())
def test_with_fewer_merges_it_stops_earlier(bpe_encode, call, data):
    """Go on from there with the others, each once in their order, and the result is that of all.

    What is learned later makes an id that no earlier pair has in it, so it makes no earlier merge possible again.
    """
    word, merges = call
    known = data.draw(st.integers(0, len(merges)))
    ids = bpe_encode(word, merges[:known])
    for i, pair in enumerate(merges[known:], start=known):
        ids = merged(ids, pair, BYTES + i)
    assert_equal(bpe_encode(word, merges), ids, "the order of learning")


@given(left=words_of(b"ab"), right=words_of(b"ab"), merges=merges_of(b"ab"))
def test_what_no_merge_joins_is_encoded_apart(bpe_encode, left, right, merges):
    """Between the two stands a byte that is in no merge."""
    apart = [*bpe_encode(left, merges), *APART, *bpe_encode(right, merges)]
    assert_equal(bpe_encode(left + APART + right, merges), apart, "only neighbours count, not what else is in the word")


@given(call=CALLS, turn=st.integers(1, BYTES - 1))
def test_bytes_are_names_and_not_numbers(bpe_encode, call, turn):
    """With other bytes in place of these, in the word and in the merges, the result has them in its place, too."""
    word, merges = call
    named = [*((byte + turn) % BYTES for byte in range(BYTES)), *range(BYTES, BYTES + len(merges))]
    other = bpe_encode(bytes(named[byte] for byte in word), [(named[left], named[right]) for left, right in merges])
    assert_equal(
        other, [named[i] for i in bpe_encode(word, merges)], "the place in merges, and not the size of the ids"
    )


def test_with_merges_of_a_training_it_is_what_tokenizers_makes(bpe_encode):
    """Where no two ids spell the same, the library may know them by what they spell."""
    words = re.findall(rb"\s?\w+|\W", TEXT)
    merges = FORMULA.bpe_train({word: words.count(word) for word in words}, BYTES + 90)
    texts = [of.decode("latin-1") for of in spelling(merges)]
    library = BPE({text: i for i, text in enumerate(texts)}, [(texts[left], texts[right]) for left, right in merges])
    for text in (*sorted({*words}), *TEXT.splitlines(), TEXT):
        expected = [token.id for token in library.tokenize(text.decode("latin-1"))]
        assert_equal(bpe_encode(text, merges), expected, "merges that are learned from a text")
