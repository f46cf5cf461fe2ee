"""What defines attention in tiles, whatever the sizes. That it equals the naive loops is in every_layer/."""

import copy
import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import Case, cases
from tests.cases.decoding.tiled_attention import Largest, limit
from tests.judge.assertions import assert_close, assert_identical, fail
from tests.judge.subject import FORMULA, REFERENCE, exact
from tests.judge.tolerances import HALF, OF_HALF

SIZES = "batch n_kv_heads groups q_len more half"


def _qkv(case, scale=1.0):
    kv = "batch n_kv_heads kv_len head_dim"
    return case.normal("batch n_heads q_len head_dim", scale), case.normal(kv), case.normal(kv)


def _mask(case, axes):
    return case.booleans(axes) if axes else None


def _scores(q, k, causal, mask):
    """All scores in float64, with -inf where they are hidden."""
    q, k = exact([q, k])
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT / math.sqrt(q.shape[-1])
    if causal:
        q_len, kv_len = scores.shape[-2:]
        scores = scores.masked_fill(~torch.ones(q_len, kv_len, dtype=torch.bool).tril(kv_len - q_len), -torch.inf)
    return scores if mask is None else scores.masked_fill(~mask.cpu(), -torch.inf)


def _lse(scores, like):
    return torch.logsumexp(scores, dim=-1).to(torch.promote_types(like.dtype, torch.float32)).to(like.device)


def _assert_both(actual, right, look_at=""):
    (y, lse), (right_y, right_lse) = actual, right
    assert_close(y, right_y, look_at, name="y")
    _assert_lse(lse, right_lse, y.dtype, look_at)


def _assert_lse(actual, right, dtype, look_at=""):
    """Beside queries of half precision it is as exact as the powers of a kernel for these."""
    assert_close(actual, right, look_at, within=OF_HALF if dtype in HALF else None, name="lse")


MASKS = st.sampled_from([None, "kv_len", "q_len 1", "batch 1 q_len kv_len", "batch n_heads q_len kv_len"])


@given(case=cases(SIZES), causal=st.booleans(), axes=MASKS)
def test_it_is_attention_for_every_size_of_a_tile(tiled_attention, case, causal, axes):
    (q, k, v), mask = _qkv(case), _mask(case, axes)
    right = REFERENCE.attention(*exact([q, k, v]), causal, exact(mask))
    for tile in range(1, case.kv_len + 3):
        y, _ = tiled_attention(q, k, v, causal, mask, tile)
        assert_close(y, right, f"tiles of {tile}, where there are {case.kv_len} keys", dtype=case.dtype)


@given(case=cases(SIZES), causal=st.booleans(), axes=MASKS, tile=st.integers(1, 12))
def test_lse_is_the_logarithm_of_the_sum_of_the_exponentials_of_the_visible_scores(
    tiled_attention, case, causal, axes, tile
):
    (q, k, v), mask = _qkv(case, scale=3.0), _mask(case, axes)
    _, lse = tiled_attention(q, k, v, causal, mask, tile)
    _assert_lse(
        lse, _lse(_scores(q, k, causal, mask), q), q.dtype, "lse: the largest score and the logarithm of the sum"
    )


@pytest.mark.exact
@given(case=cases(SIZES), causal=st.booleans(), tile=st.integers(1, 12))
def test_what_is_added_to_all_keys_along_a_query_is_added_to_lse_alone(tiled_attention, case, causal, tile):
    # All queries are alike, of the length of one: each score grows by what all keys are moved along them.
    q, k, v = _qkv(case)
    q = torch.zeros_like(q)
    q[..., 0] = math.sqrt(case.head_dim)
    moved = k.clone()
    moved[..., 0] += 16
    (y, lse), (y_moved, lse_moved) = (tiled_attention(q, keys, v, causal, tile=tile) for keys in (k, moved))
    assert_close(y_moved, y, "only differences of scores count")
    assert_close(lse_moved, lse + 16, "lse: the largest score is a part of it")


@given(case=cases(SIZES), tile=st.integers(1, 12))
def test_nothing_to_attend_gives_zeros_and_minus_infinity(tiled_attention, case, tile):
    (q, k, v), mask = _qkv(case), case.booleans("batch n_heads q_len kv_len")
    mask[:, :, 0] = False
    y, lse = tiled_attention(q, k, v, causal=False, mask=mask, tile=tile)
    assert_identical(y[:, :, 0], torch.zeros_like(y[:, :, 0]), "0/0: a sum of nothing")
    assert_identical(lse[:, :, 0], torch.full_like(lse[:, :, 0], -torch.inf), "the logarithm of nothing")


@given(case=cases(SIZES, n_kv_heads=(2, 3), groups=(2, 3)), tile=st.integers(1, 12))
def test_grouped_heads_equal_keys_and_values_repeated_for_each_head(tiled_attention, case, tile):
    q, k, v = _qkv(case)
    every = [t.repeat_interleave(case.groups, dim=1) for t in (k, v)]
    of_all = tiled_attention(q, *every, tile=tile)
    _assert_both(tiled_attention(q, k, v, tile=tile), of_all, "head h reads key head h // groups")


@given(case=cases(SIZES), tile=st.integers(1, 12))
def test_without_causal_the_order_of_keys_with_their_values_does_not_matter(tiled_attention, case, tile):
    (q, k, v), order = _qkv(case, scale=3.0), case.permutation(case.kv_len)
    before = tiled_attention(q, k, v, causal=False, tile=tile)
    permuted = tiled_attention(q, k[:, :, order], v[:, :, order], causal=False, tile=tile)
    _assert_both(permuted, before, "what was summed before, where a larger score comes up")


@given(case=cases(SIZES), axes=MASKS, tile=st.integers(1, 12))
def test_causal_is_a_mask_of_the_lower_triangle_at_the_last_key_beside_any_other(tiled_attention, case, axes, tile):
    (q, k, v), mask = _qkv(case), _mask(case, axes)
    lower = torch.ones(case.q_len, case.kv_len, dtype=torch.bool, device=q.device).tril(case.more)
    right = tiled_attention(q, k, v, causal=False, mask=lower if mask is None else lower & mask, tile=tile)
    _assert_both(tiled_attention(q, k, v, True, mask, tile), right, "mask and causal together")


@pytest.mark.exact
@given(case=cases(SIZES, more=(1, 5)), tile=st.integers(1, 12))
def test_a_hidden_key_has_no_influence_even_with_a_score_far_above_the_rest(tiled_attention, case, tile):
    q, k, v = _qkv(case)
    mask = torch.ones(case.kv_len, dtype=torch.bool, device=q.device)
    mask[case.more // 2] = False
    before = tiled_attention(q, k, v, mask=mask, tile=tile)
    # Along the sum of all queries, and long: its score would be some 1e5 above the others.
    along = q.unflatten(1, (case.n_kv_heads, case.groups)).sum(dim=(2, 3)).sign()
    k[:, :, case.more // 2], v[:, :, case.more // 2] = 1e5 * along, 1e5
    _assert_both(tiled_attention(q, k, v, mask=mask, tile=tile), before, "the largest of the visible scores")


@pytest.mark.exact
@pytest.mark.parametrize("step", [-1000, -40, -1, 1, 40, 1000])
@pytest.mark.parametrize("tile", [1, 2, 3, 4, 7, 11, 12, 13])
def test_the_largest_score_may_rise_or_fall_from_tile_to_tile(tiled_attention, step, tile):
    # Four features: the scale is 1/2, and the scores are whole numbers.
    q, k = target.tensor([[[[2.0, 0.0, 0.0, 0.0]]]]), torch.zeros_like(target.tensor([[[[0.0] * 4] * 12]]))
    k[..., 0] = target.tensor([float(step * i) for i in range(12)])
    v = target.tensor(torch.linspace(-1, 1, 48).sin().reshape(1, 1, 12, 4).tolist())
    y, lse = tiled_attention(q, k, v, causal=False, tile=tile)
    scores = _scores(q, k, False, None)
    look_at = "what was summed before, where a larger score comes up; and one that is lower"
    assert_close(y, (scores.softmax(dim=-1) @ exact(v)).to(q), look_at)
    _assert_lse(lse, _lse(scores, q), q.dtype, look_at)


@pytest.mark.parametrize("kv_len", [127, 128, 129])
@pytest.mark.parametrize("tile", [16, 42, 43, 63, 64, 65, 127, 128, 129, 300])
def test_multiples_of_a_tile_and_their_neighbours_are_right(tiled_attention, kv_len, tile):
    for q_len, causal in ((5, True), (5, False), (kv_len, True)):
        sizes = {"batch": 1, "n_heads": 2, "n_kv_heads": 1, "q_len": q_len, "kv_len": kv_len, "head_dim": 4}
        q, k, v = _qkv(Case(sizes, torch.float32, seed=tile))
        y, lse = tiled_attention(q, k, v, causal, tile=tile)
        right = FORMULA.attention(*exact([q, k, v]), causal)
        assert_close(y, right.to(q), "the last tile: one that is full, one that is not, one too many")
        _assert_lse(
            lse, _lse(_scores(q, k, causal, None), q), q.dtype, "the last tile: one that is full, one that is not"
        )


@pytest.mark.parametrize("hidden", [1, 63, 64, 128, 200, 299])
def test_keys_hidden_at_the_start_count_as_if_they_were_not_there(tiled_attention, hidden):
    # As padding on the left: whole tiles in which a query sees nothing.
    sizes = {"batch": 1, "n_heads": 2, "n_kv_heads": 1, "q_len": 300, "kv_len": 300, "head_dim": 4}
    q, k, v = _qkv(Case(sizes, torch.float32, seed=hidden))
    y, lse = tiled_attention(q, k, v, mask=torch.arange(300, device=q.device) >= hidden)
    assert_identical(y[:, :, :hidden], torch.zeros_like(y[:, :, :hidden]), "tiles in which nothing is visible")
    assert_identical(lse[:, :, :hidden], torch.full_like(lse[:, :, :hidden], -torch.inf), "tiles without a key")
    seen = tiled_attention(*(t[:, :, hidden:] for t in (q, k, v)))
    for name, actual, right in zip(("y", "lse"), (y, lse), seen, strict=True):
        assert_close(actual[:, :, hidden:], right, "tiles in which nothing is visible", name=name)


def _measured(subject, largest):
    """The same layer, whose calls alone are looked at: what surrounds them copies all arguments."""

    @functools.wraps(subject.function)
    def function(*args, **kwargs):
        with largest:
            return subject.function(*args, **kwargs)

    measured = copy.copy(subject)
    measured.function = function
    return measured


@pytest.mark.tensors
@pytest.mark.parametrize(("causal", "masked"), [(True, ""), (False, ""), (True, "kv_len"), (False, "q_len 1")])
@pytest.mark.parametrize("q_len", [1, 64, 300])
def test_never_are_all_scores_held_at_once(tiled_attention, q_len, causal, masked):
    for kv_len, tile, dtype in ((4096, 130, torch.float32), (1000, 32, torch.bfloat16)):
        sizes = {"batch": 2, "n_heads": 2, "n_kv_heads": 1, "q_len": q_len, "kv_len": kv_len, "head_dim": 4}
        case = Case(sizes, dtype, seed=q_len)
        q, k, v = _qkv(case)
        # Expanded, so that the mask itself takes no more memory than its axes.
        mask = case.booleans(masked).expand(2, 2, q_len, kv_len) if masked else None
        largest = Largest()
        _measured(tiled_attention, largest)(q, k, v, causal, mask, tile)
        if largest.elements > (allowed := limit(q, k, tile)):
            fail(
                f"a tensor of {largest.elements:,} elements is made; the largest may have {allowed:,}, and all scores "
                f"are {2 * 2 * q_len * kv_len:,}",
                "what is made for all keys at once: scores, a mask that is copied out, a triangle",
            )
