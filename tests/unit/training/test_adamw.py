"""AdamW: running averages of the gradient and its square say how far each weight steps; decay is kept apart."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, fail


def step_two(adamw, **more):
    """A second step, from param=10, grad=2, exp_avg=-5, exp_avg_sq=8."""
    given = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 1e-12, "weight_decay": 0.0} | more
    return adamw(tensor([10.0]), tensor([2.0]), tensor([-5.0]), tensor([8.0]), 2, **given)


def test_exp_avg_is_a_running_average_of_the_gradient(adamw):
    # 0.5 · -5 + 0.5 · 2
    assert_close(step_two(adamw)[1], tensor([-1.5]))


def test_exp_avg_sq_is_a_running_average_of_its_square(adamw):
    # 0.75 · 8 + 0.25 · 2²
    assert_close(step_two(adamw)[2], tensor([7.0]))


def test_the_step_is_lr_times_one_corrected_average_over_the_root_of_the_other(adamw):
    # m = -1.5 / (1 - 0.5²) = -2 and v = 7 / (1 - 0.75²) = 16: the step is 0.5 · -2 / sqrt(16) = -0.25.
    assert_close(step_two(adamw)[0], tensor([10.25]), "bias correction, with step counted from 1")


def test_eps_is_added_outside_the_root_after_the_correction(adamw):
    # 0.5 · -2 / (sqrt(16) + 4) = -0.125. Inside the root it would be 0.5 · -2 / sqrt(20), before the correction
    # 0.5 · -2 · sqrt(1 - 0.75²) / (sqrt(7) + 4).
    assert_close(step_two(adamw, eps=4.0)[0], tensor([10.125]), "the place of eps")


def test_decay_takes_lr_times_weight_decay_off_the_weight_it_found(adamw):
    # 10 - 0.5 · 0.1 · 10 + 0.25. Decaying after the step would give 9.7375, without lr 9.25.
    assert_close(step_two(adamw, weight_decay=0.1)[0], tensor([9.75]), "the decay: times lr, of the weight before")


def test_decay_does_not_enter_the_averages(adamw):
    assert_close(step_two(adamw, weight_decay=0.1)[1:], (tensor([-1.5]), tensor([7.0])), "decoupled decay, not L2")


def test_the_first_step_corrects_averages_that_started_at_zero(adamw):
    # m = 0.05 / 0.1 = 0.5 and v = 0.0125 / 0.05 = 0.25: the step is 0.1 · 0.5 / 0.5.
    zero = tensor([0.0])
    assert_close(adamw(tensor([1.0]), tensor([0.5]), zero, zero, 1, 0.1, weight_decay=0.0)[0], tensor([0.9]))


def test_each_weight_has_its_own_pace(adamw):
    # Gradients a million apart make the same first step.
    param, grad, zeros = tensor([1.0, 1.0]), tensor([1e-3, -1e3]), tensor([0.0, 0.0])
    assert_close(adamw(param, grad, zeros, zeros, 1, 0.1, eps=1e-12, weight_decay=0.0)[0], tensor([0.9, 1.1]))


def test_the_betas_are_0_9_and_0_95_unless_given(adamw):
    zero = tensor([0.0])
    assert_close(adamw(zero, tensor([1.0]), zero, zero, 1, 0.1)[1:], (tensor([0.1]), tensor([0.05])))


def test_the_weight_decay_is_0_1_unless_given(adamw):
    # 1 - 0.5 · 0.1 · 1
    zero = tensor([0.0])
    assert_close(adamw(tensor([1.0]), zero, zero, zero, 1, 0.5)[0], tensor([0.95]))


def test_eps_is_one_hundred_millionth_unless_given(adamw):
    # 1e-8 / (1e-8 + 1e-8) = 0.5
    zero = tensor([0.0])
    assert_close(adamw(zero, tensor([1e-8]), zero, zero, 1, 1.0)[0], tensor([-0.5]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_no_gradient_and_a_small_one_are_right_in_half_precision(adamw, dtype):
    # float16 has no 1e-8, and the square of 1e-4 is below it too: 0 / 0 and m / 0 in float16.
    zero, one = tensor([0.0, 0.0], dtype), tensor([1.0, 1.0], dtype)
    param, *_ = adamw(one, tensor([0.0, 1e-4], dtype), zero, zero, 1, 0.1)
    # Decay takes 0.01 off both; the step of the second is lr · sign(grad).
    assert_close(param, tensor([0.99, 0.89], dtype), "the dtype of eps and of the squares")


def test_a_rate_of_zero_moves_nothing_but_the_averages(adamw):
    param, exp_avg, exp_avg_sq = step_two(adamw, lr=0.0, weight_decay=0.1)
    assert_close((param, exp_avg, exp_avg_sq), (tensor([10.0]), tensor([-1.5]), tensor([7.0])), "lr 0")


def test_a_zero_gradient_still_moves_by_what_the_averages_hold(adamw):
    # m = 0.5 · -5 / 0.75 and v = 0.75 · 8 / (1 - 0.75²) = 96 / 7: the step is 0.5 · m / sqrt(v).
    param, exp_avg, exp_avg_sq = adamw(
        tensor([10.0]), tensor([0.0]), tensor([-5.0]), tensor([8.0]), 2, 0.5, (0.5, 0.75), 1e-12, 0.0
    )
    assert_close((exp_avg, exp_avg_sq), (tensor([-2.5]), tensor([6.0])))
    assert_close(param, tensor([10 + 0.5 * (2.5 / 0.75) / math.sqrt(96 / 7)]), "a step skipped where the gradient is 0")


@pytest.mark.tensors
def test_the_result_carries_no_graph(adamw):
    param = tensor([10.0]).requires_grad_()
    for part in adamw(param, 2 * param, tensor([-5.0]), tensor([8.0]), 2, 0.5):
        if part.requires_grad:
            fail("what comes back asks for a gradient: every step would keep all steps before it")


def test_the_averages_are_still_corrected_after_a_thousand_steps(adamw):
    # 1 - 0.9999^1000 = 0.0952, so v = 1 / 0.0952 and the step is 0.5 · 1 / sqrt(v), all averages of ones being 1.
    one = tensor([1.0])
    param, _, _ = adamw(tensor([10.0]), one, one, one, 1000, 0.5, (0.0, 0.9999), 1e-12, 0.0)
    assert_close(param, tensor([10 - 0.5 * math.sqrt(1 - 0.9999**1000)]), "the correction never ends")


def test_an_eps_of_zero_is_allowed(adamw):
    # The step is lr in the direction of the gradient, to the last bit.
    one = tensor([1.0])
    assert_close(adamw(one, one, 0 * one, 0 * one, 1, 0.5, eps=0.0, weight_decay=0.0)[0], tensor([0.5]))


def test_a_valley_is_walked_as_if_it_were_round_however_steep_its_sides_are(adamw, plot):
    # x²/2 + 64y²/2, and beside it x²/2 + y²/2 as the last two features. Plain descent swings across the valley at any
    # rate near 2/64, and 2/64 is little along it.
    steep = tensor([1.0, 64.0, 1.0, 1.0])
    at, zeros = tensor([-2.0, 1.0, -2.0, 1.0]), tensor([0.0] * 4)
    state, plain, path, plain_path = (at, zeros, zeros), at, [at], [at]
    for step in range(1, 31):
        param, *averages = state
        state = adamw(param, steep * param, *averages, step, 0.1, (0.5, 0.9), 1e-12, 0.0)
        plain = plain - 0.03 * steep * plain
        path.append(state[0])
        plain_path.append(plain)
    walked, swung = torch.stack(path).T, torch.stack(plain_path).T
    turn = torch.linspace(0, 2 * math.pi, 90)
    levels = {f"_{r}": torch.stack((r * turn.cos(), r / 8 * turn.sin())) for r in (1, 2, 4, 8)}
    lines = {"plain descent": swung[:2], "adamw": walked[:2]}
    labels = {"xlim": (-2.3, 0.7), "ylim": (-1.1, 1.1), "xlabel": "along the valley", "ylabel": "across it"}
    plot(None, levels | lines, "o-", title="30 steps, 64 times as steep across", **labels)
    loss = {name: (steep[:2, None] * line.square()).sum(dim=0) / 2 for name, line in lines.items()}
    plot(range(31), loss, "o-", title="height above the bottom", xlabel="step", yscale="log")
    assert_close(walked[:2], walked[2:])


@pytest.mark.refusal
def test_step_zero_is_refused(adamw):
    x = torch.ones(3)
    with pytest.raises(ValueError, match="adamw: step counts from 1, got 0"):
        adamw(x, x, x, x, 0, 0.1)


@pytest.mark.refusal
@pytest.mark.parametrize("betas", [(0.9, 1.0), (-0.5, 0.9)])
def test_betas_outside_zero_to_one_are_refused(adamw, betas):
    x = torch.ones(3)
    with pytest.raises(ValueError, match=rf"adamw: betas must be two in \[0, 1\), got \({betas[0]}, {betas[1]}\)"):
        adamw(x, x, x, x, 1, 0.1, betas)


@pytest.mark.refusal
@pytest.mark.parametrize(
    ("lr", "eps", "weight_decay"),
    [
        (-0.1, 0.5, 0.1),
        (0.1, -0.5, 0.1),
        (0.1, 0.5, -1.0),
        (math.nan, 0.5, 0.1),
        (0.1, math.nan, 0.1),
        (0.1, 0.5, math.nan),
    ],
)
def test_negative_rates_and_nan_are_refused(adamw, lr, eps, weight_decay):
    x, got = torch.ones(3), f"{lr}, {eps} and {weight_decay}"
    with pytest.raises(ValueError, match=f"adamw: lr, eps and weight_decay must not be negative, got {got}"):
        adamw(x, x, x, x, 1, lr, eps=eps, weight_decay=weight_decay)


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(adamw):
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"adamw: grad must be \[\.\.\.\] with \.\.\.=\(3,\), got \[1\]"):
        adamw(x, torch.ones(1), x, x, 1, 0.1)


@pytest.mark.tensors
@pytest.mark.refusal
def test_state_of_another_dtype_than_the_parameter_is_refused(adamw):
    one = torch.ones(2)
    with pytest.raises(ValueError, match="adamw: exp_avg must be bfloat16 like param, got float32"):
        adamw(one.bfloat16(), one.bfloat16(), one, one, 1, 0.1)
