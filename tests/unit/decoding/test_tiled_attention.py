"""Tiled attention: a few keys at a time, with the largest score, the sum and the mean of what was seen so far."""

import math
import re

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.tolerances import HALF, OF_HALF

LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)


def _heads(*heads):
    """One batch entry; each head a list of positions, each position a list of features."""
    return tensor([list(heads)])


def _keys(*numbers, dtype=None):
    """One head with one feature, as many positions as numbers."""
    return tensor([[[[float(number)] for number in numbers]]], dtype)


def _assert_lse(actual, numbers, look_at=""):
    """In float32 where the queries are half precision, and as exact as the powers of a kernel for these."""
    queries = tensor(0.0).dtype
    expected = tensor(numbers, torch.promote_types(queries, torch.float32))
    assert_close(actual, expected, look_at, within=OF_HALF if queries in HALF else None)


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5, 64])
def test_in_tiles_of_any_size_values_are_weighted_by_the_softmax_of_the_scores(tiled_attention, tile):
    # One feature, so the scale is 1. Scores ln 1, ln 2, ln 3 and ln 6, weights 1/12, 2/12, 3/12 and 6/12:
    # (1 · 12 + 2 · 24 + 3 · 36 + 6 · 48) / 12 = 38.
    k, v = _keys(0.0, LOG2, LOG3, math.log(6)), _keys(12, 24, 36, 48)
    y, lse = tiled_attention(_keys(1), k, v, causal=False, tile=tile)
    assert_close(y, _keys(38), "what was summed before, where a larger score comes up")
    _assert_lse(lse, [[[math.log(12)]]], "lse: the largest score and the logarithm of the sum")


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5, 64])
def test_where_the_scores_fall_nothing_changes(tiled_attention, tile):
    # The same keys and values from the last to the first.
    k, v = _keys(math.log(6), LOG3, LOG2, 0.0), _keys(48, 36, 24, 12)
    y, lse = tiled_attention(_keys(1), k, v, causal=False, tile=tile)
    assert_close(y, _keys(38), "a tile whose largest score is below that of an earlier one")
    _assert_lse(lse, [[[math.log(12)]]], "a tile whose largest score is below that of an earlier one")


def test_lse_is_made_of_scores_that_are_scaled(tiled_attention):
    # Four features: products 0 and 2 · ln 3, over sqrt(4) = 0 and ln 3. 1/4 · 8 + 3/4 · 16 = 14, and lse is ln(1 + 3).
    k, v = _heads([[0.0] * 4, [2 * LOG3, 0.0, 0.0, 0.0]]), _heads([[8.0] * 4, [16.0] * 4])
    y, lse = tiled_attention(_heads([[1.0, 0.0, 0.0, 0.0]]), k, v, causal=False, tile=1)
    assert_close(y, _heads([[14.0] * 4]), "the scale is head_dim to the power -1/2")
    _assert_lse(lse, [[[LOG4]]], "the scale, in the largest score too")


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5, 6])
def test_where_causal_the_queries_are_the_last_positions_whatever_the_tiles(tiled_attention, tile):
    # Equal scores: three queries of five positions see 3, 4 and 5 keys.
    q, same = _keys(0, 0, 0), _keys(0, 0, 0, 0, 0)
    y, lse = tiled_attention(q, same, _keys(0, 6, 12, 18, 24), tile=tile)
    assert_close(y, _keys(6, 9, 12), "the place of a key: that in its tile and where the tile begins")
    _assert_lse(lse, [[[LOG3, LOG4, math.log(5)]]], "the place of a key: that in its tile and the tile's")


def test_without_causal_every_query_sees_everything(tiled_attention):
    y, lse = tiled_attention(_keys(0, 0), _keys(0, 0, 0), _keys(6, 12, 30), causal=False, tile=2)
    assert_close(y, _keys(16, 16))
    _assert_lse(lse, [[[LOG3, LOG3]]])


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5])
def test_true_in_the_mask_means_may_attend(tiled_attention, tile):
    # Of the values 6, 12, 24 and 30 the first query sees 12 and 30, the second all but 12.
    mask = tensor([[False, True, False, True], [True, False, True, True]])
    y, lse = tiled_attention(_keys(0, 0), _keys(0, 0, 0, 0), _keys(6, 12, 24, 30), causal=False, mask=mask, tile=tile)
    assert_close(y, _keys(21, 20), "the part of the mask that belongs to the tile")
    _assert_lse(lse, [[[LOG2, LOG3]]], "the part of the mask that belongs to the tile")


def test_the_mask_and_causal_both_have_to_allow(tiled_attention):
    # The mask hides the first of three keys, causal the last from the first query.
    mask = tensor([False, True, True])
    y, lse = tiled_attention(_keys(0, 0), _keys(0, 0, 0), _keys(6, 12, 24), causal=True, mask=mask, tile=2)
    assert_close(y, _keys(12, 18))
    _assert_lse(lse, [[[0.0, LOG2]]])


def test_a_mask_with_one_column_holds_for_the_keys_of_every_tile(tiled_attention):
    mask = tensor([[True], [False]])
    y, lse = tiled_attention(_keys(0, 0), _keys(0, 0), _keys(6, 12), causal=False, mask=mask, tile=1)
    assert_close(y, _keys(9, 0), "axes of size one, cut in tiles")
    _assert_lse(lse, [[[LOG2, -math.inf]]], "axes of size one, cut in tiles")


def test_query_heads_share_key_heads_in_order(tiled_attention):
    # Four query heads, two key heads: heads 0 and 1 read the first, 2 and 3 the second.
    q, k = _heads(*[[[1.0]]] * 4), _heads([[0.0]], [[LOG3]])
    y, lse = tiled_attention(q, k, _heads([[5.0]], [[7.0]]))
    assert_close(y, _heads([[5.0]], [[5.0]], [[7.0]], [[7.0]]), "head h reads h // groups, not h % n_kv_heads")
    _assert_lse(lse, [[[0.0], [0.0], [LOG3], [LOG3]]], "lse: [batch n_heads q_len]")


@pytest.mark.parametrize("tile", [1, 2, 3])
def test_tiles_in_which_a_query_sees_nothing_leave_no_trace(tiled_attention, tile):
    # Two tiles at the beginning, and one at the end.
    mask = tensor([False, False, False, False, True, True, False, False])
    k, v = _keys(9, 9, 9, 9, 0, LOG3, 9, 9), _keys(1, 1, 1, 1, 8, 16, 1, 1)
    y, lse = tiled_attention(_keys(1), k, v, causal=False, mask=mask, tile=tile)
    assert_close(y, _keys(14), "a tile in which nothing is visible: -inf less -inf")
    _assert_lse(lse, [[[LOG4]]], "a tile in which nothing is visible: -inf less -inf")


def test_a_query_that_may_attend_to_nothing_gives_zeros_and_minus_infinity(tiled_attention):
    mask = tensor([[False, False, False], [True, True, False]])
    y, lse = tiled_attention(_keys(1, 0), _keys(1, 1, 1), _keys(6, 12, 24), causal=False, mask=mask, tile=2)
    assert_close(y, _keys(0, 9), "0/0: a sum of nothing")
    _assert_lse(lse, [[[-math.inf, LOG2]]], "the logarithm of nothing is -inf")


def test_a_query_that_the_mask_and_causal_leave_nothing_together_gives_zeros_too(tiled_attention):
    # The mask leaves query 0 the key 1, which causal hides.
    y, lse = tiled_attention(_keys(1, 0), _keys(1, 1), _keys(6, 12), mask=tensor([[False, True], [True, True]]))
    assert_close(y, _keys(0, 9), "whether a row is empty: by mask and causal together")
    _assert_lse(lse, [[[-math.inf, LOG2]]], "whether a row is empty: by mask and causal together")


def test_a_query_without_any_key_gives_zeros_and_minus_infinity(tiled_attention):
    none = _keys(1)[:, :, :0]
    y, lse = tiled_attention(_keys(1, 3), none, none, causal=False)
    assert_identical(y, _keys(0, 0), "no keys: kv_len 0")
    _assert_lse(lse, [[[-math.inf, -math.inf]]], "no keys: kv_len 0")


@pytest.mark.parametrize(("scores", "seen"), [((0, 1000), 12), ((1000, 0), 6)])
@pytest.mark.parametrize("tile", [1, 2])
def test_scores_of_a_thousand_do_not_overflow(tiled_attention, scores, seen, tile):
    # The other score, 1000 below, has no weight that a float could show.
    y, lse = tiled_attention(_keys(1), _keys(*scores), _keys(6, 12), causal=False, tile=tile)
    assert_close(y, _keys(seen), "exp(1000): the largest score so far is subtracted first")
    _assert_lse(lse, [[[1000.0]]], "exp(1000): the largest score so far is subtracted first")


@pytest.mark.parametrize("low", [-1000.0, -1e5])
def test_scores_far_below_zero_do_not_vanish(tiled_attention, low):
    # Twice the same score: the mean of the values, and ln 2 more.
    y, lse = tiled_attention(_keys(1), _keys(low, low), _keys(6, 12), causal=False, tile=1)
    assert_close(y, _keys(9), "what the largest score begins with: -inf, no finite number")
    _assert_lse(lse, [[[low + LOG2]]], "what the largest score begins with: -inf, no finite number")


def test_a_hidden_key_stays_hidden_however_low_the_visible_scores_are(tiled_attention):
    # Scores 0 (hidden) and -1e5: a hidden score of -1e4 would win.
    y, lse = tiled_attention(_keys(1), _keys(0, -1e5), _keys(6, 12), causal=False, mask=tensor([False, True]), tile=1)
    assert_close(y, _keys(12), "what hidden scores become: -inf, no finite number")
    _assert_lse(lse, [[[-1e5]]], "what hidden scores become: -inf, no finite number")


def test_a_hidden_key_stays_hidden_however_high_its_score_is(tiled_attention):
    y, lse = tiled_attention(_keys(1), _keys(1e4, 0), _keys(6, 12), causal=False, mask=tensor([False, True]), tile=2)
    assert_close(y, _keys(12), "the largest of the visible scores")
    _assert_lse(lse, [[[0.0]]], "the largest of the visible scores")


def test_lse_is_float32_beside_queries_of_half_precision(tiled_attention):
    # ln 3 is 1.0986, and 1.1016 in bfloat16.
    q, same = _keys(0, dtype=torch.bfloat16), _keys(0, 0, 0, dtype=torch.bfloat16)
    y, lse = tiled_attention(q, same, _keys(6, 12, 30, dtype=torch.bfloat16), causal=False, tile=2)
    assert_close(y, _keys(16, dtype=torch.bfloat16))
    assert_close(lse, tensor([[[LOG3]]], torch.float32), "lse is rounded to half precision", within=OF_HALF)


@pytest.mark.float64
def test_lse_is_float64_where_the_queries_are(tiled_attention):
    q, same = _keys(0, dtype=torch.float64), _keys(0, 0, 0, dtype=torch.float64)
    y, lse = tiled_attention(q, same, _keys(6, 12, 30, dtype=torch.float64), causal=False, tile=2)
    assert_close(y, _keys(16, dtype=torch.float64))
    assert_close(lse, tensor([[[LOG3]]], torch.float64), "lse is computed in float32")


def test_scores_beyond_what_float16_holds_do_not_overflow(tiled_attention):
    # 64 · 100 · 100 / 8 = 80000, and float16 ends at 65504. The other key scores 79200, so it has no weight left.
    q = tensor([[[[100.0] * 64]]], torch.float16)
    k, v = tensor([[[[99.0] * 64, [100.0] * 64]]], torch.float16), tensor([[[[3.0] * 64, [1.0] * 64]]], torch.float16)
    y, lse = tiled_attention(q, k, v, causal=False, tile=1)
    assert_close(y, torch.ones_like(q), "the dtype of the scores: at least float32")
    assert_close(lse, tensor([[[80000.0]]], torch.float32), "the dtype of the scores: at least float32")


def test_many_keys_add_up_in_half_precision(tiled_attention):
    # 1 more than 256 is 256 in bfloat16: a sum of 512 equal terms would stop there.
    same = torch.zeros_like(tensor([[[[0.0]] * 512]], torch.bfloat16))
    y, lse = tiled_attention(same[:, :, :1], same, same + 3, causal=False, tile=1)
    assert_close(y, _keys(3, dtype=torch.bfloat16), "the dtype of the sums: at least float32")
    assert_close(lse, tensor([[[math.log(512)]]], torch.float32), "the dtype of the sums: float32", within=OF_HALF)


def test_large_values_of_float16_add_up_without_overflow(tiled_attention):
    # 3 · 30000 is beyond 65504, where float16 ends; their mean is not.
    same = _keys(0, 0, 0, dtype=torch.float16)
    y, _ = tiled_attention(same[:, :, :1], same, same + 30000, causal=False, tile=3)
    assert_close(y, _keys(30000, dtype=torch.float16), "the dtype of the sum over a tile, before it is divided")


def test_with_each_key_that_is_seen_lse_rises_and_keeps_close_to_the_largest_score(tiled_attention, plot):
    keys = torch.linspace(0, 3, 24).square().sin().mul(4)
    q, k = _keys(*[1.0] * 24), _keys(*keys.tolist())
    y, lse = tiled_attention(q, k, k, tile=4)
    seen = torch.arange(1, 25)
    lines = {"score": keys, "largest so far": keys.cummax(dim=0).values, "lse": lse[0, 0], "y": y[0, 0, :, 0]}
    plot(seen, lines, title="the keys themselves are the values: their weighted mean", xlabel="keys seen")
    # Between the largest score and, where all are equal, that and the logarithm of their number.
    above = lse[0, 0] - keys.cummax(dim=0).values.to(lse)
    assert_close(above.clamp(min=0).minimum(seen.log().to(above)), above, "lse: the largest score and what is added")
    assert_close(lse, lse.cummax(dim=-1).values, "with each key the sum grows")


@pytest.mark.refusal
@pytest.mark.parametrize("tile", [0, -1])
def test_a_tile_below_one_is_refused(tiled_attention, tile):
    x = torch.ones(1, 1, 2, 8)
    with pytest.raises(ValueError, match=f"tiled_attention: tile must be at least 1, got {tile}"):
        tiled_attention(x, x, x, tile=tile)


@pytest.mark.refusal
@pytest.mark.parametrize("n_kv_heads", [3, 0])
def test_key_heads_that_do_not_divide_the_query_heads_are_refused(tiled_attention, n_kv_heads):
    q, k = torch.ones(1, 4, 2, 8), torch.ones(1, n_kv_heads, 2, 8)
    with pytest.raises(ValueError, match=f"tiled_attention: n_kv_heads must divide n_heads, got {n_kv_heads} and 4"):
        tiled_attention(q, k, k)


@pytest.mark.refusal
def test_more_queries_than_positions_are_refused_where_causal(tiled_attention):
    q, k = torch.ones(1, 1, 5, 8), torch.ones(1, 1, 3, 8)
    with pytest.raises(ValueError, match="tiled_attention: causal needs q_len <= kv_len, got 5 and 3"):
        tiled_attention(q, k, k)


@pytest.mark.refusal
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 1, 1, 1), (1, 1, 1, 2, 2)])
def test_a_mask_that_does_not_broadcast_is_refused(tiled_attention, shape):
    x = torch.ones(1, 1, 2, 8)
    sentence = re.escape(f"tiled_attention: mask must broadcast to [1, 1, 2, 2], got {list(shape)}")
    with pytest.raises(ValueError, match=sentence):
        tiled_attention(x, x, x, mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.tensors
@pytest.mark.refusal
def test_keys_or_values_of_another_dtype_than_the_queries_are_refused(tiled_attention):
    q = torch.ones(1, 1, 2, 4)
    with pytest.raises(ValueError, match="tiled_attention: v must be float32 like q, got float16"):
        tiled_attention(q, q, q.half())
