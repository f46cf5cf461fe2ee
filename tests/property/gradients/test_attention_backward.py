"""What defines the gradient of attention, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, assert_equals_formula, assert_equals_naive, assert_identical
from tests.judge.tolerances import score_tolerance

SIZES = "batch n_kv_heads groups q_len more half"


def _arguments(case):
    kv, queries = "batch n_kv_heads kv_len head_dim", "batch n_heads q_len head_dim"
    return case.normal(queries), case.normal(queries), case.normal(kv), case.normal(kv)


def _visible(case, grad, causal=True):
    """Where a query may attend to a key, as [q_len kv_len]."""
    whole = torch.ones(case.q_len, case.kv_len, dtype=torch.bool, device=grad.device)
    return whole.tril(case.more) if causal else whole


def _shared(case, t):
    """The sum over the query heads of each key head."""
    return t.unflatten(1, (case.n_kv_heads, case.groups)).sum(dim=2)


@given(case=cases(SIZES, n_kv_heads=(2, 3), groups=(2, 3)))
def test_the_gradient_of_a_key_head_is_the_sum_over_its_group(attention_backward, case):
    grad, q, k, v = _arguments(case)
    every = [t.repeat_interleave(case.groups, dim=1) for t in (k, v)]
    grad_q, grad_k, grad_v = attention_backward(grad, q, k, v)
    of_each = attention_backward(grad, q, *every)
    assert_close(grad_q, of_each[0], "head h reads key head h // groups")
    assert_close(grad_k, _shared(case, of_each[1]), "the sum over the query heads that read a key head")
    assert_close(grad_v, _shared(case, of_each[2]), "the sum over the query heads that read a key head")


@given(case=cases(SIZES), causal=st.booleans(), masked=st.booleans())
def test_the_values_together_get_all_of_grad_but_that_of_queries_that_see_nothing(
    attention_backward, case, causal, masked
):
    grad, q, k, v = _arguments(case)
    mask = case.booleans("batch n_heads q_len kv_len") if masked else None
    visible = _visible(case, grad, causal) & mask if masked else _visible(case, grad, causal)
    _, _, grad_v = attention_backward(grad, q, k, v, causal, mask)
    seeing = grad * visible.any(dim=-1, keepdim=True)
    assert_close(grad_v.sum(dim=2), _shared(case, seeing.sum(dim=2)), "the weights of a query sum to one")


@given(case=cases(SIZES), causal=st.booleans())
def test_the_gradients_of_the_keys_sum_to_zero(attention_backward, case, causal):
    # What is added to all keys alike changes no weight.
    _, grad_k, _ = attention_backward(*_arguments(case), causal)
    total = grad_k.sum(dim=2)
    assert_close(total, torch.zeros_like(total), "softmax: the weighted mean is taken away")


@given(case=cases(SIZES), causal=st.booleans())
def test_what_is_added_to_all_keys_alike_changes_no_gradient(attention_backward, case, causal):
    (grad, q, k, v), more = _arguments(case), case.normal("batch n_kv_heads 1 head_dim")
    before, after = (attention_backward(grad, q, keys, v, causal) for keys in (k, k + more))
    for of, actual, expected in zip(("q", "k", "v"), after, before, strict=True):
        assert_close(actual, expected, "only differences of scores count", name=f"grad_{of}")


@given(case=cases(SIZES), causal=st.booleans())
def test_what_is_added_to_all_values_alike_changes_no_gradient(attention_backward, case, causal):
    (grad, q, k, v), more = _arguments(case), case.normal("batch n_kv_heads 1 head_dim")
    before, after = (attention_backward(grad, q, k, values, causal) for values in (v, v + more))
    for of, actual, expected in zip(("q", "k", "v"), after, before, strict=True):
        assert_close(actual, expected, "softmax: the weighted mean is taken away", name=f"grad_{of}")


@given(case=cases(SIZES))
def test_equal_keys_share_grad_alike_and_leave_the_query_nothing(attention_backward, case):
    grad, q, k, v = _arguments(case)
    grad_q, _, grad_v = attention_backward(grad, q, k[:, :, :1].expand_as(k), v)
    assert_close(grad_q, torch.zeros_like(grad_q), "where all keys are alike, no query matters")
    visible = _visible(case, grad).to(grad.dtype)
    shares = (visible / visible.sum(dim=-1, keepdim=True)).mT @ grad
    assert_close(grad_v, _shared(case, shares), "the mean of what a query sees")


@given(case=cases(SIZES, q_len=(2, 5)), data=st.data())
def test_a_query_gives_nothing_to_later_keys_and_values(attention_backward, case, data):
    grad, q, k, v = _arguments(case)
    query = data.draw(st.integers(0, case.q_len - 2), label="the only query with a gradient")
    only = torch.zeros_like(grad)
    only[:, :, query] = grad[:, :, query]
    for gradient in attention_backward(only, q, k, v)[1:]:
        later = gradient[:, :, case.more + query + 1 :]
        assert_identical(later, torch.zeros_like(later), "the causal mask")


@given(case=cases(SIZES), masked=st.booleans())
def test_causal_is_a_mask_of_the_lower_triangle_at_the_last_key_beside_any_other(attention_backward, case, masked):
    arguments = _arguments(case)
    mask, lower = case.booleans("batch n_heads q_len kv_len") if masked else None, _visible(case, arguments[0])
    both = lower & mask if masked else lower
    expected = attention_backward(*arguments, causal=False, mask=both)
    for of, actual, right in zip(("q", "k", "v"), attention_backward(*arguments, mask=mask), expected, strict=True):
        assert_close(actual, right, "mask and causal together", name=f"grad_{of}")


@given(case=cases(SIZES), causal=st.booleans(), per_head=st.booleans())
def test_a_mask_for_each_entry_and_head_is_applied_to_that_entry_and_head(attention_backward, case, causal, per_head):
    grad, q, k, v = _arguments(case)
    mask = case.booleans("batch n_heads q_len kv_len" if per_head else "batch 1 q_len kv_len")
    grad_q, _, _ = attention_backward(grad, q, k, v, causal, mask)
    for b in range(case.batch):
        for h in range(case.n_heads):
            entry, head, one = slice(b, b + 1), slice(h, h + 1), slice(h // case.groups, h // case.groups + 1)
            alone = attention_backward(
                grad[entry, head], q[entry, head], k[entry, one], v[entry, one], causal, mask[b, h if per_head else 0]
            )
            assert_close(grad_q[entry, head], alone[0], "the axes that the mask is broadcast over")


@given(case=cases(SIZES))
def test_without_causal_the_gradients_follow_their_keys_and_values_in_any_order(attention_backward, case):
    (grad, q, k, v), order = _arguments(case), case.permutation(case.kv_len)
    grad_q, grad_k, grad_v = attention_backward(grad, q, k, v, causal=False)
    permuted = attention_backward(grad, q, k[:, :, order], v[:, :, order], causal=False)
    assert_close(permuted[0], grad_q)
    assert_close(permuted[1], grad_k[:, :, order])
    assert_close(permuted[2], grad_v[:, :, order])


@pytest.mark.exact
@given(case=cases(SIZES, more=(1, 5)))
def test_a_hidden_key_gets_and_changes_nothing_even_with_a_score_far_above_the_rest(attention_backward, case):
    grad, q, k, v = _arguments(case)
    mask = torch.ones(case.kv_len, dtype=torch.bool, device=q.device)
    mask[0] = False
    before = attention_backward(grad, q, k, v, mask=mask)
    # Along the sum of all queries, and long: its score would be some 1e5 above the others.
    k[:, :, 0] = 1e5 * _shared(case, q.sum(dim=2, keepdim=True))[:, :, 0].sign()
    v[:, :, 0] = 1e5
    after = attention_backward(grad, q, k, v, mask=mask)
    for of, actual, expected in zip(("q", "k", "v"), after, before, strict=True):
        assert_close(actual, expected, "what is added to hidden scores: -inf, no finite number", name=f"grad_{of}")
    for gradient in after[1:]:
        assert_identical(gradient[:, :, 0], torch.zeros_like(gradient[:, :, 0]), "what is hidden: exactly zero")


@given(case=cases(SIZES))
def test_a_query_without_a_visible_key_has_zeros_and_gives_none(attention_backward, case):
    grad, q, k, v = _arguments(case)
    mask = case.booleans("batch n_heads q_len kv_len")
    mask[:, :, 0] = False
    grad_q, *of_kv = attention_backward(grad, q, k, v, causal=False, mask=mask)
    assert_identical(grad_q[:, :, 0], torch.zeros_like(grad_q[:, :, 0]), "0/0: a row of -inf has no softmax")
    without = attention_backward(grad[:, :, 1:], q[:, :, 1:], k, v, causal=False, mask=mask[:, :, 1:])
    for of, actual, expected in zip(("k", "v"), of_kv, without[1:], strict=True):
        assert_close(actual, expected, "nothing from a query that sees nothing", name=f"grad_{of}")


@pytest.mark.exact
@given(case=cases(SIZES), height=st.sampled_from([-1000.0, 1000.0]))
def test_scores_far_from_zero_have_the_gradients_of_their_differences(attention_backward, case, height):
    # The first feature of all keys is moved, by which each query has all its scores moved.
    grad, q, k, v = _arguments(case)
    moved = k.clone()
    moved[..., 0] += height
    within = score_tolerance(case.dtype, (abs(height) + k.abs().max()) * q.abs().sum(dim=-1).max())
    (grad_q, _, grad_v), right = attention_backward(grad, q, moved, v), attention_backward(grad, q, k, v)
    assert_close(grad_v, right[2], "subtract the largest score before exp", within=within)
    # grad_q is made of keys as long as `height`, which cancel.
    assert_close(grad_q[..., 1:], right[0][..., 1:], "subtract the largest score before exp", within=within)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("q_len", [1, 129])
def test_long_sequences_agree_too(attention_backward, dtype, q_len):
    sizes = {"batch": 1, "n_heads": 2, "n_kv_heads": 1, "q_len": q_len, "kv_len": 130, "head_dim": 4}
    assert_equals_naive(attention_backward, *_arguments(Case(sizes, dtype, seed=q_len)))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_many_queries_of_many_heads_add_up(attention_backward, dtype):
    sizes = {"batch": 2, "n_heads": 8, "n_kv_heads": 2, "q_len": 384, "kv_len": 512, "head_dim": 4}
    assert_equals_formula(attention_backward, *_arguments(Case(sizes, dtype, seed=0)), look_at="sums over queries")


@pytest.mark.parametrize("hidden", [1, 64, 128])
def test_keys_hidden_at_the_start_count_as_if_they_were_not_there(attention_backward, hidden):
    # As padding on the left: whole blocks of keys in which a query sees nothing.
    sizes = {"batch": 1, "n_heads": 2, "n_kv_heads": 1, "q_len": 150, "kv_len": 150, "head_dim": 4}
    arguments = _arguments(Case(sizes, torch.float32, seed=hidden))
    mask = torch.arange(150, device=arguments[0].device) >= hidden
    alone = attention_backward(*(t[:, :, hidden:] for t in arguments))
    for of, gradient, expected in zip(("q", "k", "v"), attention_backward(*arguments, mask=mask), alone, strict=True):
        start = gradient[:, :, :hidden]
        assert_identical(start, torch.zeros_like(start), "blocks in which nothing is visible")
        assert_close(gradient[:, :, hidden:], expected, "blocks in which nothing is visible", name=f"grad_{of}")


@pytest.mark.parametrize("axes", ["kv_len", "1 kv_len", "q_len 1", "batch 1 1 kv_len", "1 n_heads 1 kv_len"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_is_broadcast_in_long_sequences_too(attention_backward, axes, causal):
    sizes = {"batch": 2, "n_heads": 2, "n_kv_heads": 1, "q_len": 70, "kv_len": 75, "head_dim": 4}
    case = Case(sizes, torch.float32, seed=1)
    arguments, mask = _arguments(case), case.booleans(axes)
    full = mask.expand(*(case.shape("batch n_heads q_len kv_len"))).contiguous()
    expected = attention_backward(*arguments, causal, full)
    for of, actual, right in zip(("q", "k", "v"), attention_backward(*arguments, causal, mask), expected, strict=True):
        assert_close(actual, right, "axes of size one, cut in blocks", name=f"grad_{of}")
