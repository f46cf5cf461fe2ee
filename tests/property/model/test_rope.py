"""What defines RoPE, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.cases.target import ALL, EXACT, tensor
from tests.cases.weights import frequencies, positions
from tests.judge.assertions import assert_close
from tests.judge.gradients import vjp
from tests.judge.subject import FORMULA
from tests.judge.tolerances import angle_tolerance, tolerance

SIZES = "batch n_kv_heads groups seq half"
# `within=angle_tolerance(...)` for float64 too: float32 is as exact as the contract asks the angle to be.


def _x(case):
    return case.normal("batch n_heads seq head_dim")


@given(case=cases(SIZES, ALL))
def test_position_zero_is_the_identity(rope, case):
    x = _x(case)
    y = rope(x, tensor([0] * case.seq), frequencies(case))
    assert_close(y, x, "the turn: in at least float32, and in float64 for float64 x", within=tolerance(case.dtype))


@pytest.mark.exact
@given(case=cases(SIZES))
def test_every_pair_keeps_its_norm(rope, case):
    x, at = _x(case), positions(case, "seq")
    pairs = [torch.stack(t.chunk(2, dim=-1)).norm(dim=0) for t in (rope(x, at, frequencies(case)), x)]
    assert_close(*pairs, "the pairs (i, i + head_dim/2)", within=angle_tolerance(at))


@pytest.mark.exact
@given(case=cases(SIZES), shift=st.integers(0, 1000))
def test_the_product_of_query_and_key_depends_only_on_their_distance(rope, case, shift):
    q, k, at, f = _x(case), _x(case), positions(case, "seq"), frequencies(case)
    near = rope(q, at, f) @ rope(k, at.flip(0), f).transpose(-2, -1)
    far = rope(q, at + shift, f) @ rope(k, at.flip(0) + shift, f).transpose(-2, -1)
    assert_close(far, near, "absolute position leaks into the angle", within=angle_tolerance(at + shift))


@pytest.mark.exact
@given(case=cases(SIZES))
def test_turning_by_a_and_then_by_b_is_turning_by_a_plus_b(rope, case):
    x, a, b, f = _x(case), positions(case, "seq"), positions(case, "seq"), frequencies(case)
    assert_close(rope(rope(x, a, f), b, f), rope(x, a + b, f), within=angle_tolerance(a + b))


@given(case=cases(SIZES), position=st.integers(0, 20))
def test_the_first_feature_is_turned_towards_the_one_half_a_head_further(rope, case, position):
    f = frequencies(case)
    east = torch.zeros_like(_x(case))
    east[..., 0] = 1
    at, angle = tensor([position] * case.seq), position * f[0]
    y = rope(east, at, f)[..., :: case.half]
    expected = torch.stack((angle.cos(), angle.sin())).to(y.dtype).expand_as(y)
    assert_close(y, expected, "pairs, or the direction of turn", within=angle_tolerance(at))


@given(case=cases(SIZES, half=(2, 5)), data=st.data())
def test_each_frequency_turns_its_own_pair_alone(rope, case, data):
    x, at, f = _x(case), positions(case, "seq"), frequencies(case)
    i = data.draw(st.integers(0, case.half - 1), label="pair that stands still")
    expected = rope(x, at, f).clone()
    expected[..., i :: case.half] = x[..., i :: case.half]
    f = f.clone()
    f[i] = 0
    assert_close(rope(x, at, f), expected, "which frequency belongs to which pair; a table that is kept between calls")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", ALL, ids=str)
@given(data=st.data())
def test_positions_as_far_as_131072_are_right(rope, data, dtype):
    case = data.draw(cases(SIZES, [dtype]))
    x, at, f = _x(case), case.integers("batch seq", 131_073), frequencies(case)
    # float64 x may still be turned by float32 angles: at least float32 is what the contract asks for.
    within = angle_tolerance(at) + tolerance(dtype)
    assert_close(rope(x, at, f), rope.expected(x, at, f), "the dtype of the angle", within=within, dtype=dtype)


@given(case=cases(SIZES))
def test_positions_for_each_sequence_are_those_of_each_sequence_alone(rope, case):
    x, at, f = _x(case), positions(case, "batch seq"), frequencies(case)
    alone = [rope(x[b : b + 1], at[b], f) for b in range(case.batch)]
    assert_close(rope(x, at, f), torch.cat(alone))


@given(case=cases(SIZES))
def test_nothing_is_remembered_from_a_call_with_other_positions_or_frequencies(rope, case):
    x, at, f = _x(case), positions(case, "seq"), frequencies(case)
    first = rope(x, at, f)
    # Each of these shares one argument with the last call, and has another answer.
    rope(x, 2 * at, f)
    rope(x, at, 0.5 * f)
    assert_close(rope(x, 2 * at, 0.5 * f), first, "a table that is kept between calls")


@given(case=cases(SIZES))
def test_all_heads_are_turned_alike(rope, case):
    x = _x(case)[:, :1].repeat(1, case.n_heads, 1, 1)
    y = rope(x, positions(case, "seq"), frequencies(case))
    assert_close(y, y[:, :1].expand_as(y))


@given(case=cases(SIZES, EXACT))
def test_it_is_linear_in_x(rope, case):
    x, other, at, f = _x(case), _x(case), positions(case, "seq"), frequencies(case)
    assert_close(rope(2 * x - other, at, f), 2 * rope(x, at, f) - rope(other, at, f))


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("axes", ["seq", "batch seq"])
def test_many_positions_have_the_values_and_the_gradient_of_the_formula(rope, axes, dtype):
    # More numbers than fit into a cache: kernels take some positions after others.
    case = Case({"batch": 2, "n_heads": 3, "seq": 1500, "head_dim": 64}, dtype, seed=0)
    x, at = case.normal("batch n_heads seq head_dim").requires_grad_(), case.integers(axes, 1500)
    turns = tensor([10000.0 ** (-i / 32) for i in range(32)])
    exact = x.detach().double().requires_grad_()
    y, right = rope(x, at, turns), FORMULA.rope(exact, at, turns)
    far = max(angle_tolerance(at), tolerance(dtype))
    assert_close(y.detach(), right.detach(), within=far, dtype=dtype)
    towards = case.normal("batch n_heads seq head_dim")
    (gradient,) = vjp(y, [x], towards)
    (expected,) = vjp(right, [exact], towards.double())
    assert_close(gradient, expected, within=far, dtype=dtype)
