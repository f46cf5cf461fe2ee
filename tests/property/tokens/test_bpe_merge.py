"""What defines one merge, whatever the ids. That it equals the naive loop is in every_layer/."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.judge.assertions import assert_equal, fail

NEW = 256
FEW = st.integers(0, 2)
"""So few ids that pairs and runs are common."""


@given(ids=st.lists(FEW, max_size=12), pair=st.tuples(FEW, FEW))
def test_the_new_id_spelled_out_gives_the_ids_back(bpe_merge, ids, pair):
    merged = bpe_merge(ids, pair, NEW)
    assert_equal(
        [part for i in merged for part in (pair if i == NEW else (i,))], ids, "nothing is lost or turned round"
    )


@given(ids=st.lists(FEW, max_size=12), pair=st.tuples(FEW, FEW))
def test_no_pair_is_left(bpe_merge, ids, pair):
    if pair in pairwise(bpe_merge(ids, pair, NEW)):
        fail(f"{pair} still stands in the result", "every occurrence")


@given(ids=st.lists(FEW, max_size=12), pair=st.tuples(FEW, FEW), behind=st.lists(FEW, max_size=4))
def test_it_goes_from_the_left(bpe_merge, ids, pair, behind):
    """What follows changes nothing before it, but for the last id, which may be the left one of a pair."""
    alone, together = bpe_merge(ids, pair, NEW), bpe_merge(ids + behind, pair, NEW)
    assert_equal(together[: max(0, len(alone) - 1)], alone[:-1], "from the left, without overlap")


@given(ids=st.lists(FEW, max_size=12), pair=st.tuples(FEW, FEW), shift=st.sampled_from([1000, 2**31, 2**62]))
def test_ids_are_names_and_not_numbers(bpe_merge, ids, pair, shift):
    """With all ids moved by as much, the result is the same one, moved."""
    left, right = pair
    moved = bpe_merge([i + shift for i in ids], (left + shift, right + shift), NEW + shift)
    assert_equal(moved, [i + shift for i in bpe_merge(ids, pair, NEW)], "ids of any size")
