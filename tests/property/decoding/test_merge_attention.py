"""What defines the merge of two parts, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.subject import REFERENCE, exact

SIZES = "batch n_kv_heads groups q_len more half"
ROWS = "batch seq half"


def _attention(case):
    """Attention of the naive loops over any of the keys, as y and lse in the dtypes that a layer would return."""
    q = case.normal("batch n_heads q_len head_dim", 2.0)
    k, v = case.normal("batch n_kv_heads kv_len head_dim"), case.normal("batch n_kv_heads kv_len head_dim")
    # Some queries see nothing in one part or in any.
    mask = case.booleans("batch n_heads q_len kv_len")
    wide = torch.promote_types(case.dtype, torch.float32)

    def over(keys):
        found = REFERENCE.tiled_attention(
            *exact([q, k[:, :, keys], v[:, :, keys]]), causal=False, mask=exact(mask[..., keys])
        )
        return found[0].to(q), found[1].to(q.device, wide)

    return over


def _part(case):
    lse = case.normal("batch seq", 3.0)
    return case.normal("batch seq head_dim"), lse.to(torch.promote_types(case.dtype, torch.float32))


def _assert_both(actual, right, look_at=""):
    for name, of_actual, of_right in zip(("y", "lse"), actual, right, strict=True):
        assert_close(of_actual, of_right, look_at, name=name)


@given(case=cases(SIZES), data=st.data())
def test_any_split_of_the_keys_in_any_order_merges_to_attention_over_all(merge_attention, case, data):
    over, order = _attention(case), case.permutation(case.kv_len)
    at = data.draw(st.integers(0, case.kv_len), label="keys in the first part")
    _assert_both(merge_attention(*over(order[:at]), *over(order[at:])), over(order), "the weights: exp(lse)")


@given(case=cases(SIZES), data=st.data())
def test_single_keys_merged_one_after_the_other_in_any_order_are_attention_over_all(merge_attention, case, data):
    over, order = _attention(case), case.permutation(case.kv_len)
    y, lse = over(order[:0])
    for i in range(case.kv_len):
        one = over(order[i : i + 1])
        y, lse = merge_attention(y, lse, *one) if data.draw(st.booleans()) else merge_attention(*one, y, lse)
    _assert_both((y, lse), over(order), "what has been merged weighs as much as all that is in it")


@given(case=cases(ROWS), anything=st.sampled_from([0.0, 1e4, math.inf, math.nan]))
def test_an_empty_part_is_neutral_whatever_its_y_holds(merge_attention, case, anything):
    y, lse = _part(case)
    empty = torch.full_like(y, anything), torch.full_like(lse, -torch.inf)
    _assert_both(merge_attention(y, lse, *empty), (y, lse), "an empty part: 0 times NaN is NaN")
    _assert_both(merge_attention(*empty, y, lse), (y, lse), "an empty part: 0 times NaN is NaN")


@given(case=cases(ROWS), anything=st.sampled_from([0.0, 1e4, math.inf, math.nan]))
def test_rows_that_are_empty_in_both_parts_are_zeros_and_minus_infinity_beside_any_others(
    merge_attention, case, anything
):
    (y_a, lse_a), (y_b, lse_b), empty = _part(case), _part(case), case.booleans("batch seq")
    right = merge_attention(y_a, lse_a, y_b, lse_b)
    y_a, y_b = (y.masked_fill(empty[..., None], anything) for y in (y_a, y_b))
    lse_a, lse_b = (lse.masked_fill(empty, -torch.inf) for lse in (lse_a, lse_b))
    y, lse = merge_attention(y_a, lse_a, y_b, lse_b)
    assert_identical(y[empty], torch.zeros_like(y[empty]), "-inf less -inf, and a sum of nothing")
    assert_identical(lse[empty], torch.full_like(lse[empty], -torch.inf), "the logarithm of nothing")
    for name, actual, expected in zip(("y", "lse"), (y, lse), right, strict=True):
        assert_close(actual[~empty], expected[~empty], "each row by itself", name=name)


@given(case=cases(ROWS))
def test_it_does_not_matter_which_two_of_three_parts_are_merged_first(merge_attention, case):
    a, b, c = _part(case), _part(case), _part(case)
    left, right = merge_attention(*merge_attention(*a, *b), *c), merge_attention(*a, *merge_attention(*b, *c))
    _assert_both(left, right, "what has been merged weighs as much as all that is in it")


@given(case=cases(ROWS))
def test_it_does_not_matter_which_part_comes_first(merge_attention, case):
    a, b = _part(case), _part(case)
    _assert_both(merge_attention(*a, *b), merge_attention(*b, *a), "the weights: which is whose")


@given(case=cases(ROWS))
def test_where_both_parts_have_the_same_y_it_stays_as_it_is(merge_attention, case):
    (y, lse_a), (_, lse_b) = _part(case), _part(case)
    merged, _ = merge_attention(y, lse_a, y, lse_b)
    assert_close(merged, y, "the weights sum to one")


@pytest.mark.exact
@given(case=cases(ROWS), height=st.sampled_from([-(2.0**20), -(2.0**12), 2.0**12, 2.0**20]))
def test_what_is_added_to_both_lse_is_added_to_the_result_and_changes_no_weight(merge_attention, case, height):
    # Whole numbers, which float32 holds at any height.
    (y_a, _), (y_b, _) = _part(case), _part(case)
    lse_a, lse_b = (case.integers("batch seq", 7).to(y_a.dtype) for _ in "ab")
    y, lse = merge_attention(y_a, lse_a, y_b, lse_b)
    moved = merge_attention(y_a, lse_a + height, y_b, lse_b + height)
    _assert_both(moved, (y, lse + height), "exp(1000) and exp(-1000): the larger one is subtracted first")


@given(case=cases(ROWS), distance=st.sampled_from([1e3, 1e4, 1e30]))
def test_a_part_far_above_the_other_is_all_that_is_left(merge_attention, case, distance):
    (y_a, lse_a), (y_b, lse_b) = _part(case), _part(case)
    assert_close(merge_attention(y_a, lse_a + distance, y_b, lse_b)[0], y_a, "the larger one is subtracted")
    assert_close(merge_attention(y_a, lse_a, y_b, lse_b + distance)[0], y_b, "the larger one is subtracted")


@given(case=cases("batch seq n half"))
def test_rows_are_merged_each_by_itself(merge_attention, case):
    y_a, y_b = case.normal("batch seq n head_dim"), case.normal("batch seq n head_dim")
    lse_a, lse_b = case.normal("batch seq n", 3.0), case.normal("batch seq n", 3.0)
    y, lse = merge_attention(y_a, lse_a, y_b, lse_b)
    rows = [merge_attention(*row) for row in zip(*(t.flatten(0, 2) for t in (y_a, lse_a, y_b, lse_b)), strict=True)]
    look_at = "lse has one number for each row of y, and lacks its last axis"
    assert_close(y, torch.stack([of_row for of_row, _ in rows]).view_as(y), look_at)
    assert_close(lse, torch.stack([of_row for _, of_row in rows]).view_as(lse), look_at)
