"""What defines the gradient of self-attention, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import arguments, drawn
from tests.cases.case import Case
from tests.cases.sizes import small
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.tolerances import angle_tolerance

NAMES = ("grad_x", "grad_w_q", "grad_w_k", "grad_w_v", "grad_w_o")


def _arguments(case):
    """Typical arguments, apart from positions and frequencies. Angles stay small: float32 is exact enough for them."""
    (*rest, positions, frequencies), _ = arguments("self_attention_backward", case)
    return rest, positions % 8, frequencies


def _along(gradient, of):
    """How much the loss grows where `of` is made larger as it is, and over how much that is added up."""
    products = gradient.double() * of.double()
    return products.sum(), products.abs().sum()


@given(case=drawn("self_attention_backward"))
def test_x_gets_as_much_along_itself_as_its_three_projections_together(self_attention_backward, case):
    # Queries, keys and values are each linear in x and in their weight: twice the weight is as good as twice the x.
    rest, *turns = _arguments(case)
    _, x, *weights = rest[:5]
    grad_x, *of_weights = self_attention_backward(*rest, *turns)
    along_x, terms = _along(grad_x, x)
    parts = [_along(g, w) for g, w in zip(of_weights[:3], weights, strict=True)]
    total = sum(part for part, _ in parts)
    scale = 1 + terms + sum(of for _, of in parts)
    share = ((along_x - total) / scale).to(x.dtype)
    assert_close(share, torch.zeros_like(share), "x reaches the result by q, k and v: three parts that add up")


@given(case=drawn("self_attention_backward"))
def test_a_larger_w_q_and_a_larger_w_k_make_the_same_scores(self_attention_backward, case):
    rest, *turns = _arguments(case)
    _, of_q, of_k, *_ = self_attention_backward(*rest, *turns)
    (along_q, some), (along_k, others) = _along(of_q, rest[2]), _along(of_k, rest[3])
    share = ((along_q - along_k) / (1 + some + others)).to(of_q.dtype)
    assert_close(share, torch.zeros_like(share), "rope_backward over q and over k")


@given(case=drawn("self_attention_backward"), factor=st.sampled_from([0.25, 4.0]))
def test_everything_but_w_o_itself_gets_as_much_more_as_w_o_is_larger(self_attention_backward, case, factor):
    rest, *turns = _arguments(case)
    before = self_attention_backward(*rest, *turns)
    rest[5] = rest[5] * factor
    after = self_attention_backward(*rest, *turns)
    for name, actual, expected in zip(NAMES[:4], after, before, strict=False):
        assert_close(actual, factor * expected, "what comes back passes through w_o", name=name)
    assert_close(after[4], before[4], "grad_w_o: grad times the heads")


@given(case=drawn("self_attention_backward"))
def test_without_scores_no_position_matters(self_attention_backward, case):
    # w_q and w_k are zeros: what is left are means of values, which carry no position.
    rest, positions, frequencies = _arguments(case)
    rest[2], rest[3] = torch.zeros_like(rest[2]), torch.zeros_like(rest[3])
    near, far = (self_attention_backward(*rest, at, frequencies) for at in (positions, 3 * positions + 1))
    for name, actual, expected in zip(NAMES, far, near, strict=True):
        assert_close(actual, expected, "rope goes over q and k only", name=name)


@pytest.mark.exact
@given(case=drawn("self_attention_backward"), shift=st.integers(1, 8))
def test_shifting_all_positions_changes_nothing(self_attention_backward, case, shift):
    rest, positions, frequencies = _arguments(case)
    within = angle_tolerance(positions + shift)
    before = self_attention_backward(*rest, positions, frequencies)
    after = self_attention_backward(*rest, positions + shift, frequencies)
    for name, actual, expected in zip(NAMES, after, before, strict=True):
        assert_close(actual, expected, "turned back by as much as forward", within=within, name=name)


@given(case=drawn("self_attention_backward", seq=(2, 7)), data=st.data())
def test_a_token_gives_nothing_to_later_ones(self_attention_backward, case, data):
    (grad, *rest), *turns = _arguments(case)
    kept = data.draw(st.integers(1, case.seq - 1), label="tokens with a gradient")
    only = grad.clone()
    only[:, kept:] = 0
    later = self_attention_backward(only, *rest, *turns)[0][:, kept:]
    assert_identical(later, torch.zeros_like(later), "the causal mask")


@given(case=drawn("self_attention_backward", seq=(2, 7)))
def test_positions_matter_on_the_way_back(self_attention_backward, case):
    rest, positions, frequencies = _arguments(case)
    in_order = torch.arange(case.seq, device=positions.device)
    near, far = (self_attention_backward(*rest, in_order * apart, frequencies)[1] for apart in (1, 3))
    assert not torch.equal(near, far)


@given(case=drawn("self_attention_backward"))
def test_positions_for_each_sequence_are_those_of_each_sequence_alone(self_attention_backward, case):
    (grad, x, *rest), _, frequencies = _arguments(case)
    at = case.integers("batch seq", 8)
    together, *sums = self_attention_backward(grad, x, *rest, at, frequencies)
    entries = [slice(b, b + 1) for b in range(case.batch)]
    alone = [self_attention_backward(grad[b], x[b], *rest, at[b][0], frequencies) for b in entries]
    assert_close(together, torch.cat([entry[0] for entry in alone]), "positions of each sequence")
    for i, name in enumerate(NAMES[1:], start=1):
        assert_close(sums[i - 1], sum(entry[i] for entry in alone), "positions of each sequence", name=name)


@given(case=drawn("self_attention_backward", n_kv_heads=(2, 3)))
def test_exchanging_the_heads_exchanges_their_gradients(self_attention_backward, case):
    (grad, x, w_q, w_k, w_v, w_o, *heads), *turns = _arguments(case)
    q_rows = torch.arange(len(w_q), device=x.device).view(case.n_kv_heads, -1).flip(0).flatten()
    rows = torch.arange(len(w_k), device=x.device).view(case.n_kv_heads, -1).flip(0).flatten()
    before = self_attention_backward(grad, x, w_q, w_k, w_v, w_o, *heads, *turns)
    after = self_attention_backward(grad, x, w_q[q_rows], w_k[rows], w_v[rows], w_o[:, q_rows], *heads, *turns)
    exchanged = before[0], before[1][q_rows], before[2][rows], before[3][rows], before[4][:, q_rows]
    for name, actual, expected in zip(NAMES, after, exchanged, strict=True):
        assert_close(actual, expected, "head h is the rows from h · head_dim", name=name)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_far_positions_are_told_apart_in_half_precision(self_attention_backward, dtype):
    # bfloat16 counts 1000, 1004, 1008; and float16 counts 4096, 4100, 4104.
    for seed in range(4):
        args, kwargs = arguments("self_attention_backward", Case(small("self_attention_backward"), dtype, seed))
        args = (args[0], 2 * args[1], *args[2:8], args[8] + 4097, *args[9:])
        look_at = "positions or angles in the dtype of x"
        assert_equals_formula(self_attention_backward, *args, look_at=look_at, **kwargs)
