"""Clipping: one norm over all gradients together, and all of them shortened alike where it is above the limit."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical, fail


def test_the_norm_is_taken_over_all_gradients_together(clip_grad_norm):
    # sqrt(3² + 4²)
    assert_close(clip_grad_norm([tensor([3.0]), tensor([[4.0]])], 1.0)[1], tensor(5.0), "one norm over the whole list")


def test_the_norm_is_taken_over_every_element(clip_grad_norm):
    # sqrt(1 + 4 + 4 + 16 + 144)
    assert_close(clip_grad_norm([tensor([[-1.0, 2.0], [2.0, -4.0]]), tensor(12.0)], 1.0)[1], tensor(13.0))


def test_above_the_limit_all_are_scaled_by_the_limit_over_the_norm(clip_grad_norm):
    # The norm is 5, so all are divided by 5. Each by its own norm, or each value, would become 1.
    clipped, _ = clip_grad_norm([tensor([3.0]), tensor([-4.0])], 1.0)
    assert_close(clipped, [tensor([0.6]), tensor([-0.8])], "one scale for the whole list")


def test_a_gradient_that_is_short_by_itself_is_scaled_with_the_others(clip_grad_norm):
    # The norm of 12, 4, 3 is 13, so all become 1/13 of 6.5.
    clipped, _ = clip_grad_norm([tensor([12.0]), tensor([4.0, 3.0])], 6.5)
    assert_close(clipped, [tensor([6.0]), tensor([2.0, 1.5])])


def test_below_the_limit_nothing_is_scaled_up(clip_grad_norm):
    grads = [tensor([0.3]), tensor([-0.4])]
    for clipped, grad in zip(clip_grad_norm(grads, 100.0)[0], grads, strict=True):
        assert_identical(clipped, grad, "clipping is for what is above the limit")


def test_the_norm_that_is_returned_is_the_one_before_clipping(clip_grad_norm):
    assert_close(clip_grad_norm([tensor([30.0, 40.0])], 1.0)[1], tensor(50.0))


def test_zeros_stay_zeros(clip_grad_norm):
    zeros = [tensor([0.0, 0.0]), tensor(0.0)]
    assert_close(clip_grad_norm(zeros, 1.0), (zeros, tensor(0.0)))


def test_no_gradients_are_a_norm_of_zero(clip_grad_norm):
    clipped, norm = clip_grad_norm([], 1.0)
    assert list(clipped) == []
    assert float(norm) == 0.0


def test_three_hundred_squared_does_not_overflow_in_float16(clip_grad_norm):
    clipped, norm = clip_grad_norm([tensor([300.0], torch.float16), tensor([400.0], torch.float16)], 5.0)
    expected = [tensor([3.0], torch.float16), tensor([4.0], torch.float16)], tensor(500.0)
    assert_close((clipped, norm), expected, "squares in at least float32")


def test_an_infinite_norm_is_above_every_limit(clip_grad_norm):
    # inf · (1 / inf) has no value, and 3 · (1 / inf) is 0.
    clipped, norm = clip_grad_norm([tensor([math.inf]), tensor([3.0])], 1.0)
    if not math.isinf(norm):
        fail(f"the norm is {float(norm)} but should be inf")
    assert_close(clipped[1], tensor([0.0]), "an infinite norm is above every limit")
    if not clipped[0].isnan().all():
        fail(f"grads[0] is {clipped[0].tolist()} but should be nan: what is infinite cannot be scaled")


def test_the_norm_of_half_precision_may_be_beyond_what_half_precision_holds(clip_grad_norm):
    # sqrt(4 · 60,000²) = 120,000, and float16 ends at 65,504.
    clipped, norm = clip_grad_norm([tensor([60_000.0] * 4, torch.float16)], 1.0)
    assert_close(tensor(float(norm)), tensor(120_000.0), "the norm is in float32 at least")
    assert_close(clipped, [tensor([0.5] * 4, torch.float16)])


@pytest.mark.tensors
def test_the_result_carries_no_graph(clip_grad_norm):
    weight = tensor([3.0, 4.0]).requires_grad_()
    (clipped,), norm = clip_grad_norm([2 * weight], 1.0)
    if clipped.requires_grad or getattr(norm, "requires_grad", False):
        fail("what comes back asks for a gradient: every step would keep all steps before it")


def test_a_gradient_beyond_the_limit_is_drawn_back_to_it_and_one_within_it_stays(clip_grad_norm, plot):
    turn, length = torch.linspace(0, 1.85 * math.pi, 14), torch.linspace(0.35, 3, 14)
    grads = tensor(torch.stack((length * turn.cos(), length * turn.sin()), dim=-1).tolist())
    clipped = torch.stack([clip_grad_norm([grad], 1.0)[0][0] for grad in grads])
    around = torch.linspace(0, 2 * math.pi, 90)
    moves = {f"_{i}": torch.stack((grads[i], clipped[i])).T for i in range(14)}
    limit = {"_limit": torch.stack((around.cos(), around.sin()))}
    labels = {"aspect": "equal", "xlabel": "of the first weight", "ylabel": "of the second weight"}
    lines = limit | moves | {"gradient": grads.T, "clipped": clipped.T}
    plot(None, lines, "o", title="max_norm 1: the direction is kept", **labels)
    norms = {"gradient": grads.norm(dim=-1), "clipped": clipped.norm(dim=-1)}
    plot(range(14), norms, "o", title="norms", xlabel="gradient", ylim=(0, 3.2))
    assert_close(clipped, grads / grads.norm(dim=-1, keepdim=True).clamp(min=1.0))


@pytest.mark.refusal
@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(clip_grad_norm, max_norm):
    with pytest.raises(ValueError, match=f"clip_grad_norm: max_norm must be positive, got {max_norm}"):
        clip_grad_norm([torch.ones(2)], max_norm)


@pytest.mark.refusal
def test_a_generator_instead_of_a_list_is_refused(clip_grad_norm):
    with pytest.raises(TypeError, match="clip_grad_norm: grads must be a list, got generator"):
        clip_grad_norm((torch.ones(n) for n in (2, 3)), 1.0)


@pytest.mark.refusal
def test_integers_are_refused_with_their_place(clip_grad_norm):
    with pytest.raises(ValueError, match=r"clip_grad_norm: grads\[1\] must be float, got int64"):
        clip_grad_norm([torch.ones(2), torch.ones(2, dtype=torch.int64)], 1.0)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_each_gradient_counts_as_exactly_as_its_own_dtype_has_it(clip_grad_norm, half):
    # Beside one in half precision: 300,000 is beyond float16, and bfloat16 has nothing between 4,096 and 4,128.
    for number in (300_000.0, 4_111.0):
        for grads in ([tensor([0.0], half), tensor([number])], [tensor([number]), tensor([0.0], half)]):
            _, norm = clip_grad_norm(grads, 1.0)
            assert_close(tensor(float(norm)), tensor(number), "all gradients in the dtype of the first")


@pytest.mark.float64
@pytest.mark.parametrize("max_norm", [2.5, 100.0])
def test_each_gradient_keeps_its_own_dtype(clip_grad_norm, max_norm):
    # As of a model whose norms are float32 and whose matrices are bfloat16.
    clipped, _ = clip_grad_norm([tensor([3.0], torch.bfloat16), tensor([4.0]), tensor(0.0).double()], max_norm)
    scale = min(1.0, max_norm / 5)
    assert [grad.dtype for grad in clipped] == [torch.bfloat16, torch.float32, torch.float64]
    assert_close(clipped[1], tensor([4.0 * scale]))
