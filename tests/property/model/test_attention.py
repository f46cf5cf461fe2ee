"""What defines attention, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, assert_equals_naive, assert_finite, assert_identical
from tests.judge.subject import FORMULA

SIZES = "batch n_kv_heads groups q_len more half"
SQUARE = "batch n_kv_heads groups seq half"


def _qkv(case, scale=1.0):
    kv = "batch n_kv_heads kv_len head_dim"
    return case.normal("batch n_heads q_len head_dim", scale), case.normal(kv), case.normal(kv)


def _square(case):
    kv = "batch n_kv_heads seq head_dim"
    return case.normal("batch n_heads seq head_dim"), case.normal(kv), case.normal(kv)


@given(case=cases(SIZES))
def test_equal_keys_give_the_mean_of_what_may_be_seen(attention, case):
    q, k, v = _qkv(case)
    y = attention(q, k[:, :, :1].expand_as(k), v)
    v = v.repeat_interleave(case.groups, dim=1)
    means = [v[:, :, : case.more + t + 1].mean(dim=2) for t in range(case.q_len)]
    assert_close(y, torch.stack(means, dim=2))


@given(case=cases(SIZES), causal=st.booleans())
def test_the_weights_sum_to_one(attention, case, causal):
    q, k, v = _qkv(case)
    assert_close(attention(q, k, torch.ones_like(v), causal=causal), torch.ones_like(q))


@given(case=cases(SIZES))
def test_the_result_stays_within_the_range_of_the_visible_values(attention, case):
    # Values that count up: query t may see 0 .. more + t and nothing beyond.
    q, k, v = _qkv(case, scale=3.0)
    v = torch.ones_like(v) * torch.arange(case.kv_len, device=v.device)[:, None]
    y = attention(q, k, v)
    last = torch.arange(case.more, case.kv_len, device=v.device)[:, None] + torch.zeros_like(y)
    excess = (y - last).clamp(min=0) + (-y).clamp(min=0)
    assert_close(excess, torch.zeros_like(excess))


@given(case=cases(SIZES, q_len=(2, 5)), data=st.data())
def test_changing_a_later_key_or_value_changes_nothing_to_the_last_bit(attention, case, data):
    q, k, v = _qkv(case)
    position = data.draw(st.integers(case.more, case.kv_len - 2), label="last position kept")
    before = attention(q, k, v)
    k[:, :, position + 1 :] = 100 * case.normal(k[:, :, position + 1 :].shape)
    v[:, :, position + 1 :] = 100 * case.normal(v[:, :, position + 1 :].shape)
    kept = position - case.more + 1
    assert_identical(attention(q, k, v)[:, :, :kept], before[:, :, :kept], "the causal mask")


@given(case=cases(SIZES), data=st.data())
def test_the_last_query_sees_every_key(attention, case, data):
    q, k, v = _qkv(case)
    before, key = attention(q, k, v)[:, :, -1], data.draw(st.integers(0, case.kv_len - 1), label="key")
    v[:, :, key] += 1000
    assert (attention(q, k, v)[:, :, -1] != before).all()


@given(case=cases(SQUARE), data=st.data())
def test_the_last_queries_over_a_cache_equal_the_last_rows_of_the_full_pass(attention, case, data):
    q, k, v = _square(case)
    kept = data.draw(st.integers(1, case.seq), label="queries")
    assert_close(attention(q[:, :, -kept:], k, v), attention(q, k, v)[:, :, -kept:])


@given(case=cases(SIZES, n_kv_heads=(2, 3), groups=(2, 3)))
def test_grouped_heads_equal_keys_and_values_repeated_for_each_head(attention, case):
    q, k, v = _qkv(case)
    every = [t.repeat_interleave(case.groups, dim=1) for t in (k, v)]
    assert_close(attention(q, k, v), attention(q, *every), "head h reads key head h // groups")


@given(case=cases(SIZES))
def test_without_causal_the_order_of_keys_with_their_values_does_not_matter(attention, case):
    (q, k, v), order = _qkv(case), case.permutation(case.kv_len)
    assert_close(attention(q, k[:, :, order], v[:, :, order], causal=False), attention(q, k, v, causal=False))


@given(case=cases(SIZES), masked=st.booleans())
def test_causal_is_a_mask_of_the_lower_triangle_at_the_last_key_beside_any_other(attention, case, masked):
    q, k, v = _qkv(case)
    mask = case.booleans("batch n_heads q_len kv_len") if masked else None
    lower = torch.ones(case.q_len, case.kv_len, dtype=torch.bool, device=q.device).tril(case.more)
    both = lower & mask if masked else lower
    assert_close(attention(q, k, v, mask=mask), attention(q, k, v, causal=False, mask=both), "mask and causal together")


@given(case=cases(SIZES), causal=st.booleans(), per_head=st.booleans())
def test_a_mask_for_each_entry_and_head_is_applied_to_that_entry_and_head(attention, case, causal, per_head):
    q, k, v = _qkv(case)
    mask = case.booleans("batch n_heads q_len kv_len" if per_head else "batch 1 q_len kv_len")
    y = attention(q, k, v, causal=causal, mask=mask)
    for b in range(case.batch):
        for h in range(case.n_heads):
            one = h // case.groups
            alone = attention(
                q[b : b + 1, h : h + 1],
                k[b : b + 1, one : one + 1],
                v[b : b + 1, one : one + 1],
                causal=causal,
                mask=mask[b, h if per_head else 0],
            )
            assert_close(y[b : b + 1, h : h + 1], alone, "the axes that the mask is broadcast over")


@pytest.mark.exact
@given(case=cases(SIZES, more=(1, 5)))
def test_a_hidden_key_has_no_influence_even_with_a_score_far_above_the_rest(attention, case):
    q, k, v = _qkv(case)
    mask = torch.ones(case.kv_len, dtype=torch.bool, device=q.device)
    mask[0] = False
    before = attention(q, k, v, mask=mask)
    # Along the sum of all queries, and long: its score would be some 1e5 above the others.
    k[:, :, 0] = 1e5 * q.unflatten(1, (case.n_kv_heads, case.groups)).sum(dim=(2, 3)).sign()
    v[:, :, 0] = 1e5
    assert_identical(attention(q, k, v, mask=mask), before, "what is added to hidden scores: -inf, no finite number")


@given(case=cases(SIZES))
def test_nothing_to_attend_gives_zeros(attention, case):
    q, k, v = _qkv(case)
    mask = case.booleans("batch n_heads q_len kv_len")
    mask[:, :, 0] = False
    y = attention(q, k, v, causal=False, mask=mask)
    assert_identical(y[:, :, 0], torch.zeros_like(y[:, :, 0]))
    assert_finite(y)


@pytest.mark.tensors
@given(case=cases(SIZES))
def test_nothing_to_attend_leaves_no_nan_in_the_gradients(attention, case):
    leaves = [t.requires_grad_() for t in _qkv(case)]
    mask = case.booleans("batch n_heads q_len kv_len")
    mask[:, :, 0] = False
    attention(*leaves, causal=False, mask=mask).sum().backward()
    for leaf in leaves:
        assert_finite(leaf.grad)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("q_len", [1, 300])
def test_long_sequences_agree_too(attention, dtype, q_len):
    sizes = {"batch": 1, "n_heads": 2, "n_kv_heads": 1, "q_len": q_len, "kv_len": 330, "head_dim": 4}
    assert_equals_naive(attention, *_qkv(Case(sizes, dtype, seed=q_len)))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_many_heads_have_the_values_and_gradients_of_the_formula(attention, dtype):
    # More scores than fit into a cache: kernels take some heads after others.
    sizes = {"batch": 16, "n_heads": 4, "n_kv_heads": 2, "q_len": 100, "kv_len": 110, "head_dim": 4}
    given = _qkv(Case(sizes, dtype, seed=0))
    leaves, exact = ([t.detach().to(d).requires_grad_() for t in given] for d in (dtype, torch.float64))
    out, right = attention(*leaves), FORMULA.attention(*exact)
    assert_close(out.detach(), right.detach(), dtype=dtype)
    for actual, expected in zip(
        torch.autograd.grad(out.sum(), leaves), torch.autograd.grad(right.sum(), exact), strict=True
    ):
        assert_close(actual, expected, dtype=dtype)


@pytest.mark.parametrize("hidden", [1, 64, 128, 200, 299])
def test_keys_hidden_at_the_start_count_as_if_they_were_not_there(attention, hidden):
    # As padding on the left: whole blocks of keys in which a query sees nothing.
    case = Case({"batch": 1, "n_heads": 2, "n_kv_heads": 1, "kv_len": 300, "head_dim": 4}, torch.float32, seed=hidden)
    q = case.normal("batch n_heads kv_len head_dim")
    k, v = (case.normal("batch n_kv_heads kv_len head_dim") for _ in "kv")
    mask = torch.arange(300, device=q.device) >= hidden
    y = attention(q, k, v, mask=mask)
    assert_identical(y[:, :, :hidden], torch.zeros_like(y[:, :, :hidden]))
    seen = [t[:, :, hidden:] for t in (q, k, v)]
    assert_close(y[:, :, hidden:], attention(*seen), "blocks in which nothing is visible")


@pytest.mark.parametrize("axes", ["kv_len", "1 kv_len", "q_len 1", "batch 1 1 kv_len", "1 n_heads 1 kv_len"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_is_broadcast_in_long_sequences_too(attention, axes, causal):
    sizes = {"batch": 2, "n_heads": 2, "n_kv_heads": 1, "q_len": 131, "kv_len": 150, "head_dim": 4}
    case = Case(sizes, torch.float32, seed=1)
    (q, k, v), mask = _qkv(case), case.booleans(axes)
    full = mask.expand(*(case.shape("batch n_heads q_len kv_len"))).contiguous()
    assert_close(attention(q, k, v, causal, mask), attention(q, k, v, causal, full), "axes of size one, cut in blocks")
