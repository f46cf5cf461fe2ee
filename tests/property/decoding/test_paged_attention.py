"""What defines paged attention, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.calls import calls_of
from tests.cases.case import Case, cases
from tests.cases.decoding.paged_attention import arguments, with_garbage
from tests.judge.assertions import assert_close, assert_equals_naive, assert_identical, fail
from tests.judge.subject import FORMULA

SIZES = calls_of("paged_attention").sizes
ONE = "n_kv_heads groups seq half"


def _call(case):
    """The arguments as a list."""
    return list(arguments(case)[0])


def _of_one_sequence(case):
    """A query, and keys and values of `seq` positions, without pages."""
    kv = "1 n_kv_heads seq head_dim"
    return case.normal("1 n_heads head_dim"), case.normal(kv), case.normal(kv)


def _in_pages(case, of, page_size, order=None):
    """The positions [1 n_kv_heads seq head_dim] in pages of that size, zeros behind them, and the row of their table.

    The pages lie in an order that is drawn, with some between them that nobody reads.
    """
    n_pages = -(-case.seq // page_size)
    table = case.permutation(2 * n_pages)[:n_pages] if order is None else order
    padded = torch.nn.functional.pad(of, (0, 0, 0, n_pages * page_size - case.seq))
    pages = of.new_zeros(2 * n_pages, case.n_kv_heads, page_size, case.head_dim)
    pages[table] = padded[0].unflatten(1, (n_pages, page_size)).transpose(0, 1)
    return pages, table


@pytest.mark.tensors
@given(case=cases(SIZES))
def test_it_is_attention_over_the_gathered_positions(paged_attention, case):
    q, key_pages, value_pages, table, lengths = _call(case)
    y, page_size = paged_attention(q, key_pages, value_pages, table, lengths), key_pages.shape[2]
    for b, length in enumerate(lengths.tolist()):
        positions = torch.arange(length, device=q.device)
        pages, slots = table[b, positions // page_size], positions % page_size
        keys, values = (of[pages, :, slots].transpose(0, 1)[None].double() for of in (key_pages, value_pages))
        right = FORMULA.attention(q[b][None, :, None].double(), keys, values, causal=False)
        assert_close(y[b], right[0, :, 0], dtype=case.dtype)


@pytest.mark.tensors
@given(case=cases(SIZES))
def test_the_largest_numbers_beyond_the_length_have_no_influence(paged_attention, case):
    """A score with them overflows, and infinity less infinity is NaN."""
    args, _ = with_garbage(case, torch.finfo(case.dtype).max)
    assert_equals_naive(paged_attention, *args, look_at="hide what lies beyond the length before it is multiplied")


@pytest.mark.tensors
@given(case=cases(SIZES))
def test_slots_of_nan_and_entries_that_are_no_page_beyond_the_length_have_no_influence(paged_attention, case):
    args, _ = with_garbage(case)
    assert_equals_naive(paged_attention, *args, look_at="0 · NaN is NaN, in the values too")
    q, key_pages, value_pages, table, lengths = args
    table = table.masked_fill(table < 0, 2**40)
    assert_equals_naive(paged_attention, q, key_pages, value_pages, table, lengths, look_at="entries that nothing uses")


@given(case=cases(SIZES))
def test_whatever_number_lies_beyond_the_length_the_result_is_the_same_to_the_last_bit(paged_attention, case):
    q, key_pages, _, table, lengths = _call(case)
    # A page of its own for each sequence: what one does not read, no other one does.
    table = torch.arange(table.numel(), device=table.device).view(table.shape)
    held = torch.arange(table.shape[1] * key_pages.shape[2], device=table.device) < lengths[:, None]
    held = held.view(table.numel(), 1, -1, 1)
    shape = [table.numel(), *key_pages.shape[1:]]
    small = [case.normal(shape), case.normal(shape)]
    large = [torch.where(held, of, 1000 * case.normal(shape)) for of in small]
    assert_identical(paged_attention(q, *large, table, lengths), paged_attention(q, *small, table, lengths))


@given(case=cases(SIZES))
def test_pages_that_lie_elsewhere_and_are_named_so_in_the_table_change_nothing(paged_attention, case):
    q, key_pages, value_pages, table, lengths = _call(case)
    before = paged_attention(q, key_pages, value_pages, table, lengths)
    place = case.permutation(len(key_pages))
    moved = [torch.empty_like(of).index_copy(0, place, of) for of in (key_pages, value_pages)]
    assert_close(paged_attention(q, *moved, place[table], lengths), before, "the page that the table names")


@given(case=cases(SIZES, batch=(2, 3)))
def test_a_page_that_is_shared_is_as_good_as_a_copy_for_each(paged_attention, case):
    q, key_pages, value_pages, table, lengths = _call(case)
    shared = paged_attention(q, key_pages, value_pages, table, lengths)
    copied = [torch.cat((of, of[table[1:, 0]])) for of in (key_pages, value_pages)]
    table = table.clone()
    table[1:, 0] = len(key_pages) + torch.arange(case.batch - 1, device=table.device)
    assert_close(paged_attention(q, *copied, table, lengths), shared)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 16])
@given(case=cases(ONE))
def test_the_size_of_a_page_changes_nothing(paged_attention, page_size, case):
    q, keys, values = _of_one_sequence(case)
    length = target.tensor([case.seq])
    alone = target.tensor([[0]])
    right = paged_attention(q, keys, values, alone, length)  # one page
    key_pages, row = _in_pages(case, keys, page_size)
    value_pages, _ = _in_pages(case, values, page_size, row)
    assert_close(paged_attention(q, key_pages, value_pages, row[None], length), right, "page and slot of a position")


@pytest.mark.tensors
@pytest.mark.parametrize("page_size", [1, 3, 4])
@given(case=cases(ONE, seq=(9, 9)))
def test_sequences_of_each_length_over_the_same_pages_are_the_rows_of_causal_attention(
    paged_attention, page_size, case
):
    # Lengths from nothing to a full row: at each end of a page, before it and behind it.
    _, keys, values = _of_one_sequence(case)
    key_pages, row = _in_pages(case, keys, page_size)
    value_pages, _ = _in_pages(case, values, page_size, row)
    q = case.normal([case.seq + 1, case.n_heads, case.head_dim])
    lengths = torch.arange(case.seq + 1, device=q.device)
    y = paged_attention(q, key_pages, value_pages, row.expand(len(q), -1), lengths)
    assert_identical(y[0], torch.zeros_like(y[0]))
    right = FORMULA.attention(q[None, 1:].transpose(1, 2).double(), keys.double(), values.double())
    assert_close(y[1:], right[0].transpose(0, 1), "where a sequence ends", dtype=case.dtype)


@given(case=cases(ONE), data=st.data())
def test_every_position_before_the_length_has_influence_and_the_next_one_has_none(paged_attention, case, data):
    q, keys, values = _of_one_sequence(case)
    page_size = data.draw(st.sampled_from([1, 2, 3, 4]), label="page_size")
    length = data.draw(st.integers(0, case.seq), label="length")
    position = data.draw(st.integers(0, case.seq - 1), label="position changed")
    key_pages, row = _in_pages(case, keys, page_size)
    changed = values.clone()
    changed[:, :, position] += 1000
    before, after = (
        paged_attention(q, key_pages, _in_pages(case, of, page_size, row)[0], row[None], target.tensor([length]))
        for of in (values, changed)
    )
    if position >= length:
        assert_identical(after, before, "positions 0 .. length - 1")
    elif (after == before).any():
        fail(f"position {position} of {length} has no influence", "positions 0 .. length - 1")


@given(case=cases(SIZES))
def test_the_weights_of_a_sequence_sum_to_one_unless_it_has_no_positions(paged_attention, case):
    q, key_pages, value_pages, table, lengths = _call(case)
    y = paged_attention(q, key_pages, torch.ones_like(value_pages), table, lengths)
    assert_close(y, torch.ones_like(q) * (lengths > 0)[:, None, None])


@given(case=cases(SIZES, n_kv_heads=(2, 3), groups=(2, 3)))
def test_grouped_heads_equal_pages_with_a_key_head_for_each_query_head(paged_attention, case):
    q, key_pages, value_pages, table, lengths = _call(case)
    every = [of.repeat_interleave(case.groups, dim=1) for of in (key_pages, value_pages)]
    grouped = paged_attention(q, key_pages, value_pages, table, lengths)
    assert_close(grouped, paged_attention(q, *every, table, lengths), "head h reads key head h // groups")


@given(case=cases(ONE, seq=(8, 8)))
def test_the_order_of_full_pages_within_a_sequence_does_not_matter(paged_attention, case):
    # Each position has the same weight wherever it stands: only rope knows of positions.
    q, keys, values = _of_one_sequence(case)
    key_pages, row = _in_pages(case, keys, 2)
    value_pages, _ = _in_pages(case, values, 2, row)
    length = target.tensor([8])
    y = paged_attention(q, key_pages, value_pages, row[None], length)
    assert_close(paged_attention(q, key_pages, value_pages, row[case.permutation(4)][None], length), y)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("page_size", [16, 100])
def test_long_sequences_agree_too(paged_attention, page_size, dtype):
    case = Case({"n_heads": 4, "n_kv_heads": 2, "seq": 600, "head_dim": 4}, dtype, seed=page_size)
    _, keys, values = _of_one_sequence(case)
    key_pages, row = _in_pages(case, keys, page_size)
    value_pages, _ = _in_pages(case, values, page_size, row)
    lengths = target.tensor([511, 512, 513, 600, 128, 0])
    q, table = case.normal([6, 4, 4]), row.expand(6, -1)
    assert_equals_naive(paged_attention, q, key_pages, value_pages, table, lengths)
