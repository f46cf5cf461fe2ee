"""Paged attention: one query for each sequence, over keys and values whose place is looked up in a table."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical

LOG3 = math.log(3)
NAN = math.nan


def _pages(*pages):
    """Pages of one head and one feature, each a list of its slots."""
    return tensor([[[[float(slot)] for slot in page]] for page in pages])


def _queries(*queries):
    """One query for each sequence, of one head and one feature."""
    return tensor([[[float(query)]] for query in queries])


THREE_PAGES = [[30, 42], [60, 72], [6, 12]]
"""Values. Where they are read as pages 2, 0 and 1, they are 6, 12, 30, 42, 60, 72."""


def test_the_positions_of_a_sequence_lie_in_the_pages_that_its_row_of_the_table_names(paged_attention):
    # Pages of two slots. Positions 0 and 1 lie in page 2, position 2 in page 0. All keys are equal: (6 + 12 + 30) / 3.
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1), torch.zeros_like(values), values, tensor([[2, 0]]), tensor([3]))
    assert_close(y, _queries(16), "slot p % page_size of page page_table[b, p // page_size]")


def test_values_are_weighted_by_the_softmax_of_the_scores(paged_attention):
    # One feature, so the scale is 1. Scores 0 and ln 3, weights 1/4 and 3/4: 1/4 · 8 + 3/4 · 16 = 14.
    y = paged_attention(_queries(1), _pages([0, LOG3]), _pages([8, 16]), tensor([[0]]), tensor([2]))
    assert_close(y, _queries(14))


def test_scores_are_divided_by_the_square_root_of_head_dim(paged_attention):
    # Four features: products 0 and 2 · ln 3, over sqrt(4) = 0 and ln 3.
    keys = tensor([[[[0.0] * 4, [2 * LOG3, 0.0, 0.0, 0.0]]]])
    values = tensor([[[[8.0] * 4, [16.0] * 4]]])
    y = paged_attention(tensor([[[1.0, 0.0, 0.0, 0.0]]]), keys, values, tensor([[0]]), tensor([2]))
    assert_close(y, tensor([[[14.0] * 4]]), "the scale is head_dim to the power -1/2")


@pytest.mark.parametrize(("length", "mean"), [(1, 6), (2, 9), (3, 16), (4, 22.5), (5, 30), (6, 37)])
def test_a_sequence_ends_at_its_length(paged_attention, length, mean):
    # Within a page, at its end, and one position beyond: 6, 12, 30, 42, 60, 72 as far as the length.
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1), torch.zeros_like(values), values, tensor([[2, 0, 1]]), tensor([length]))
    assert_close(y, _queries(mean), "positions 0 .. length - 1")


def test_each_sequence_has_its_own_row_and_its_own_length(paged_attention):
    # Sequence 0 reads 30, 42 and 6, sequence 1 reads 60.
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1, 1), torch.zeros_like(values), values, tensor([[0, 2], [1, 0]]), tensor([3, 1]))
    assert_close(y, _queries(26, 60))


def test_a_sequence_without_positions_gives_zeros(paged_attention):
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1, 1), torch.zeros_like(values), values, tensor([[0], [1]]), tensor([0, 2]))
    assert_identical(y[:1], _queries(0), "0/0: a softmax of nothing")
    assert_close(y[1:], _queries(66))


def test_sequences_of_which_none_has_positions_give_zeros(paged_attention):
    values = _pages(*THREE_PAGES)
    table = tensor([[-1], [-1]])
    y = paged_attention(_queries(1, 1), torch.zeros_like(values), values, table, tensor([0, 0]))
    assert_identical(y, _queries(0, 0), "a softmax of nothing, for all of them")


def test_what_lies_beyond_the_length_may_be_anything(paged_attention):
    # The one slot that is read is the first of page 1.
    keys, values = _pages([NAN, NAN], [0, NAN]), _pages([NAN, NAN], [60, NAN])
    y = paged_attention(_queries(1), keys, values, tensor([[1, -1, 2**40]]), tensor([1]))
    assert_close(y, _queries(60), "0 · NaN is NaN, in the values too; entries of the table that nothing uses")


def test_two_sequences_may_share_a_page_and_end_at_different_slots_of_it(paged_attention):
    # Both begin with page 2. Sequence 0 ends behind its first slot; sequence 1 reads 6, 12 and 30.
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1, 1), torch.zeros_like(values), values, tensor([[2, 1], [2, 0]]), tensor([1, 3]))
    assert_close(y, _queries(6, 16), "a page belongs to every row that names it")


def test_a_sequence_may_read_a_page_twice(paged_attention):
    # 6, 12, 6, 12 and 60.
    values = _pages(*THREE_PAGES)
    y = paged_attention(_queries(1), torch.zeros_like(values), values, tensor([[2, 2, 1]]), tensor([5]))
    assert_close(y, _queries(19.2))


def test_a_page_may_have_any_number_of_slots(paged_attention):
    # Three slots are no power of two: positions 0 to 3 are 3, 6, 9 and 1; a slot each: 9, 1 and 6.
    three, one = _pages([1, 2, 5], [3, 6, 9]), _pages([1], [3], [6], [9])
    y = paged_attention(_queries(1), torch.zeros_like(three), three, tensor([[1, 0]]), tensor([4]))
    assert_close(y, _queries(4.75), "p // page_size and p % page_size, for page_size 3 too")
    y = paged_attention(_queries(1), torch.zeros_like(one), one, tensor([[3, 0, 2]]), tensor([3]))
    assert_close(y, _queries(16 / 3), "pages of one slot")


def test_query_heads_share_key_heads_in_order(paged_attention, imshow):
    # Six query heads, two key heads: heads 0, 1 and 2 read the first, 3, 4 and 5 the second.
    values = tensor([[[[5.0, 0.0]], [[0.0, 7.0]]]])
    y = paged_attention(tensor([[[1.0, 1.0]] * 6]), torch.zeros_like(values), values, tensor([[0]]), tensor([1]))
    imshow(y[0], xlabel="feature", ylabel="query head", title="[5 0] in key head 0 of the page, [0 7] in key head 1")
    look_at = "head h reads h // groups, neither h % n_kv_heads nor h // n_kv_heads"
    assert_close(y, tensor([[[5.0, 0.0]] * 3 + [[0.0, 7.0]] * 3]), look_at)


def test_a_page_holds_the_slots_of_one_key_head_after_those_of_the_other(paged_attention):
    # [n_pages n_kv_heads page_size head_dim]: key head 0 holds 1 and 3, key head 1 holds 5 and 9.
    values = tensor([[[[1.0], [3.0]], [[5.0], [9.0]]]])
    y = paged_attention(tensor([[[1.0], [1.0]]]), torch.zeros_like(values), values, tensor([[0]]), tensor([2]))
    assert_close(y, tensor([[[2.0], [7.0]]]), "the axes of a page: heads, then slots")


def test_the_slots_behind_the_newest_do_not_count_as_keys_of_zeros(paged_attention):
    # Page 0 is read as far as its first slot. One score of -5; a key of zeros would have the score 0, and win.
    y = paged_attention(_queries(1), _pages([-5, 0, 0, 0]), _pages([8, 0, 0, 0]), tensor([[0]]), tensor([1]))
    assert_close(y, _queries(8), "hidden scores are -inf; a score of 0 has the power 1")


def test_a_hidden_slot_stays_hidden_however_low_the_visible_scores_are(paged_attention):
    y = paged_attention(_queries(1), _pages([-1e5, 0]), _pages([8, 16]), tensor([[0]]), tensor([1]))
    assert_close(y, _queries(8), "what hidden scores become: -inf, no finite number")


def test_scores_of_a_thousand_do_not_overflow(paged_attention):
    # Neither where the largest lies in the second page; 1000 below it no weight is left that a float could show.
    keys, values = _pages([0, 0], [1000, 0]), _pages([8, 8], [16, 8])
    y = paged_attention(_queries(1), keys, values, tensor([[0, 1]]), tensor([4]))
    assert_close(y, _queries(16), "exp(1000): subtract the largest score of all pages first")


def test_a_larger_score_in_a_later_page_lowers_the_weights_of_the_earlier_ones(paged_attention):
    # Scores 0, 0 | ln 3, ln 3: weights 1/8, 1/8, 3/8, 3/8. (8 + 8) / 8 + 3 · (16 + 16) / 8 = 14.
    keys, values = _pages([0, 0], [LOG3, LOG3]), _pages([8, 8], [16, 16])
    y = paged_attention(_queries(1), keys, values, tensor([[0, 1]]), tensor([4]))
    assert_close(y, _queries(14), "one softmax over all pages")


def test_scores_beyond_what_float16_holds_do_not_overflow(paged_attention):
    # 64 · 100 · 100 / 8 = 80000, and float16 ends at 65504. The other key scores 79200, so it has no weight left.
    q = tensor([[[100.0] * 64]], torch.float16)
    keys, values = (
        tensor([[[[first] * 64, [second] * 64]]], torch.float16) for first, second in ((100.0, 99.0), (1.0, 3.0))
    )
    y = paged_attention(q, keys, values, tensor([[0]]), tensor([2]))
    assert_close(y, torch.ones_like(q), "the dtype of the scores: at least float32")


@pytest.mark.float64
def test_a_sequence_may_have_five_thousand_positions(paged_attention):
    # In float64: the roundings of 5000 equal terms, added one after another, all point the same way.
    values = tensor([[[[float(page < 625)]] * 4] for page in range(1250)], torch.float64)
    q, lengths = tensor([[[1.0]]] * 2, torch.float64), tensor([5000, 4998])
    table = torch.arange(1249, -1, -1, device=q.device).expand(2, -1)
    y = paged_attention(q, torch.zeros_like(values), values, table, lengths)
    right = tensor([[[2500 / 5000]], [[2498 / 4998]]], torch.float64)
    assert_close(y, right, "a window, parts of a long sequence that are put together wrongly")


def test_a_longer_sequence_reads_one_slot_more_wherever_that_lies(paged_attention, imshow):
    # Values that are the rows of the identity come out as the weights of all slots: 1 / length for each that is read.
    values = tensor(torch.eye(8).reshape(4, 1, 2, 8).tolist())
    table = tensor([[3, 0, 2, 1]]).expand(9, 4)
    q = tensor([[[1.0] * 8]] * 9)
    y = paged_attention(q, torch.zeros_like(values), values, table, tensor(list(range(9))))
    labels = {"xlabel": "slot, where it lies in memory", "ylabel": "length"}
    imshow(y[:, 0], title="weights, where the table says 3, 0, 2, 1", vmin=0, vmax=1, **labels)
    order = [6, 7, 0, 1, 4, 5, 2, 3]
    right = torch.zeros(9, 8)
    for length in range(1, 9):
        right[length, order[:length]] = 1 / length
    assert_close(y[:, 0], tensor(right.tolist()))


@pytest.mark.refusal
@pytest.mark.parametrize("n_kv_heads", [3, 0])
def test_key_heads_that_do_not_divide_the_query_heads_are_refused(paged_attention, n_kv_heads):
    pages = torch.ones(1, n_kv_heads, 2, 8)
    with pytest.raises(ValueError, match=f"paged_attention: n_kv_heads must divide n_heads, got {n_kv_heads} and 4"):
        paged_attention(torch.ones(1, 4, 8), pages, pages, torch.tensor([[0]]), torch.tensor([1]))


@pytest.mark.refusal
@pytest.mark.parametrize("length", [-1, 5])
def test_a_length_that_the_row_of_the_table_does_not_hold_is_refused(paged_attention, length):
    pages = torch.ones(3, 1, 2, 8)
    sentence = rf"paged_attention: lengths must lie in 0\.\.4, which is what 2 pages of 2 hold, got {length}"
    with pytest.raises(ValueError, match=sentence):
        paged_attention(torch.ones(1, 1, 8), pages, pages, torch.tensor([[0, 1]]), torch.tensor([length]))


@pytest.mark.refusal
@pytest.mark.parametrize("page", [-1, 3])
def test_an_entry_that_is_used_and_is_no_page_is_refused(paged_attention, page):
    # Python would read page -1 as the last one.
    pages = torch.ones(3, 1, 2, 8)
    with pytest.raises(IndexError, match=rf"paged_attention: page_table must lie in 0\.\.2, got {page}"):
        paged_attention(torch.ones(1, 1, 8), pages, pages, torch.tensor([[0, page]]), torch.tensor([3]))


@pytest.mark.refusal
def test_another_number_of_rows_in_the_table_than_queries_is_refused(paged_attention):
    pages = torch.ones(3, 1, 2, 8)
    with pytest.raises(ValueError, match=r"paged_attention: page_table must be \[batch max_pages\] with batch=1"):
        paged_attention(torch.ones(1, 1, 8), pages, pages, torch.tensor([[0], [1]]), torch.tensor([1]))


@pytest.mark.tensors
@pytest.mark.refusal
def test_pages_of_another_dtype_than_the_queries_are_refused(paged_attention):
    pages = torch.ones(1, 1, 2, 4)
    with pytest.raises(ValueError, match="paged_attention: value_pages must be float32 like q, got float16"):
        paged_attention(torch.ones(1, 1, 4), pages, pages.half(), torch.tensor([[0]]), torch.tensor([1]))
