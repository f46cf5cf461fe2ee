"""One merge: every occurrence of a pair of ids becomes one new id, from the left, without overlap."""

import pytest

from tests.judge.assertions import assert_equal


def test_the_pair_becomes_the_new_id(bpe_merge):
    assert_equal(bpe_merge([1, 2, 3], (1, 2), 256), [256, 3])


def test_every_occurrence_is_replaced(bpe_merge):
    assert_equal(bpe_merge([1, 2, 0, 1, 2, 1, 2], (1, 2), 256), [256, 0, 256, 256])


def test_the_end_of_the_list_is_looked_at(bpe_merge):
    assert_equal(bpe_merge([0, 1, 2], (1, 2), 256), [0, 256], "the last pair begins one before the last id")


def test_a_left_id_at_the_end_stays(bpe_merge):
    assert_equal(bpe_merge([1, 2, 1], (1, 2), 256), [256, 1], "nothing follows the last id")


def test_the_pair_has_an_order(bpe_merge):
    assert_equal(bpe_merge([2, 1], (1, 2), 256), [2, 1], "left id first")


def test_neighbours_only(bpe_merge):
    assert_equal(bpe_merge([1, 0, 2], (1, 2), 256), [1, 0, 2])


def test_a_left_id_before_the_pair_stays(bpe_merge):
    # The first 1 is no pair, and must not swallow the second.
    assert_equal(bpe_merge([1, 1, 2], (1, 2), 256), [1, 256], "one step where there is no pair, two where there is")


def test_three_alike_are_one_pair_and_one_left_over(bpe_merge):
    assert_equal(bpe_merge([1, 1, 1], (1, 1), 256), [256, 1], "from the left")


@pytest.mark.parametrize(("length", "merged"), [(2, [256]), (4, [256, 256]), (5, [256, 256, 1])])
def test_a_run_is_cut_into_pairs_without_overlap(bpe_merge, length, merged):
    assert_equal(bpe_merge([1] * length, (1, 1), 256), merged, "after a pair reading goes on behind it")


def test_the_new_id_forms_no_pair_in_the_same_merge(bpe_merge):
    # 2 takes the place of the first two; with the third it would be the pair again.
    assert_equal(bpe_merge([2, 2, 2, 2], (2, 2), 2), [2, 2], "one pass")


def test_ids_above_255_are_merged_like_any_other(bpe_merge):
    assert_equal(bpe_merge([300, 256, 300], (300, 256), 301), [301, 300])


def test_ids_are_compared_whole(bpe_merge):
    assert_equal(bpe_merge([1, 23, 11, 2], (1, 2), 256), [1, 23, 11, 2], "ids, not their digits")


def test_large_ids_are_not_cut_off(bpe_merge):
    assert_equal(bpe_merge([2**40, 2**40 + 1, 0], (2**40, 2**40 + 1), 2**41), [2**41, 0])


@pytest.mark.parametrize("ids", [[], [1]])
def test_where_no_pair_fits_nothing_changes(bpe_merge, ids):
    assert_equal(bpe_merge(ids, (1, 2), 256), ids)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("ids", "pair", "sentence"),
    [
        ("ab", (1, 2), "bpe_merge: ids must be a list, got str"),
        ([1.5], (1, 2), "bpe_merge: ids[0] must be an integer, got 1.5"),
        ([1], [1, 2], r"bpe_merge: pair must be a tuple of 2, got [1, 2]"),
        ([1], (1, 2, 3), r"bpe_merge: pair must be a tuple of 2, got (1, 2, 3)"),
    ],
)
def test_other_values_are_refused_in_a_sentence(bpe_merge, ids, pair, sentence):
    with pytest.raises(TypeError) as error:
        bpe_merge(ids, pair, 256)
    assert str(error.value) == sentence


def test_what_a_merge_does(bpe_merge, plot):
    """Each merge of "ab" in a text of it halves its length, and with it what is left to do."""
    lengths, ids = [], [97, 98] * 32
    for new_id, pair in ((256, (97, 98)), (257, (256, 256)), (258, (257, 257)), (259, (258, 258)), (260, (259, 259))):
        lengths.append(len(ids))
        ids = bpe_merge(ids, pair, new_id)
    plot(range(5), {"ids": lengths}, "o-", title="ids of abab..., merge after merge", xlabel="merges", ylabel="ids")
    assert_equal(lengths, [64, 32, 16, 8, 4])
