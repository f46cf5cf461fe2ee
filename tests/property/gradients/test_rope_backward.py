"""What defines the gradient of RoPE, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.cases.target import ALL, tensor
from tests.cases.weights import frequencies, positions
from tests.judge.assertions import assert_close
from tests.judge.subject import FORMULA
from tests.judge.tolerances import angle_tolerance, tolerance

SIZES = "batch n_kv_heads groups seq half"
# `within=angle_tolerance(...)` for float64 too: float32 is as exact as the contract asks the angle to be.


def _grad(case):
    return case.normal("batch n_heads seq head_dim")


@given(case=cases(SIZES, ALL))
def test_position_zero_is_the_identity(rope_backward, case):
    grad = _grad(case)
    grad_x = rope_backward(grad, tensor([0] * case.seq), frequencies(case))
    # The turn itself is in at least float32, and in float64 for float64.
    assert_close(grad_x, grad, "the dtype of the turn", within=tolerance(case.dtype))


@pytest.mark.exact
@given(case=cases(SIZES))
def test_it_undoes_the_turn(rope_backward, case):
    x, at, f = _grad(case), positions(case, "seq"), frequencies(case)
    assert_close(rope_backward(FORMULA.rope(x, at, f), at, f), x, "the turn back", within=angle_tolerance(at))


@pytest.mark.exact
@given(case=cases(SIZES))
def test_it_is_the_turn_by_the_negated_positions(rope_backward, case):
    grad, at, f = _grad(case), positions(case, "batch seq"), frequencies(case)
    for forth, back in ((at, -at), (-at, at)):
        assert_close(rope_backward(grad, forth, f), FORMULA.rope(grad, back, f), within=angle_tolerance(at))


@pytest.mark.exact
@given(case=cases(SIZES))
def test_every_pair_keeps_its_norm(rope_backward, case):
    grad, at = _grad(case), positions(case, "seq")
    pairs = [torch.stack(t.chunk(2, dim=-1)).norm(dim=0) for t in (rope_backward(grad, at, frequencies(case)), grad)]
    assert_close(*pairs, "the pairs (i, i + head_dim/2)", within=angle_tolerance(at))


@given(case=cases(SIZES, half=(2, 5)), data=st.data())
def test_each_frequency_turns_its_own_pair_alone(rope_backward, case, data):
    grad, at, f = _grad(case), positions(case, "seq"), frequencies(case)
    i = data.draw(st.integers(0, case.half - 1), label="pair that stands still")
    expected = rope_backward(grad, at, f).clone()
    expected[..., i :: case.half] = grad[..., i :: case.half]
    f = f.clone()
    f[i] = 0
    assert_close(rope_backward(grad, at, f), expected, "which frequency belongs to which pair")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", ALL, ids=str)
@given(data=st.data())
def test_positions_as_far_as_131072_are_right(rope_backward, data, dtype):
    case = data.draw(cases(SIZES, [dtype]))
    grad, at, f = _grad(case), case.integers("batch seq", 131_073), frequencies(case)
    # float64 may still be turned by float32 angles: at least float32 is what the contract asks for.
    within, expected = angle_tolerance(at) + tolerance(dtype), rope_backward.expected(grad, at, f)
    assert_close(rope_backward(grad, at, f), expected, "the dtype of the angle", within=within, dtype=dtype)


@given(case=cases(SIZES))
def test_positions_for_each_sequence_are_those_of_each_sequence_alone(rope_backward, case):
    grad, at, f = _grad(case), positions(case, "batch seq"), frequencies(case)
    alone = [rope_backward(grad[b : b + 1], at[b], f) for b in range(case.batch)]
    assert_close(rope_backward(grad, at, f), torch.cat(alone))


@given(case=cases(SIZES))
def test_all_heads_are_turned_alike(rope_backward, case):
    grad = _grad(case)[:, :1].repeat(1, case.n_heads, 1, 1)
    grad_x = rope_backward(grad, positions(case, "seq"), frequencies(case))
    assert_close(grad_x, grad_x[:, :1].expand_as(grad_x))


@given(case=cases(SIZES))
def test_nothing_is_remembered_from_a_call_with_other_positions_or_frequencies(rope_backward, case):
    grad, at, f = _grad(case), positions(case, "seq"), frequencies(case)
    first = rope_backward(grad, at, f)
    # Each of these shares one argument with the last call, and has another answer.
    rope_backward(grad, 2 * at, f)
    rope_backward(grad, at, 0.5 * f)
    assert_close(rope_backward(grad, 2 * at, 0.5 * f), first, "a table that is kept between calls")
