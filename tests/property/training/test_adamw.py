"""What defines AdamW, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import Case, cases
from tests.judge.assertions import assert_close, fail
from tests.judge.subject import FORMULA, exact, word
from tests.judge.tolerances import moment_tolerance

BETAS = st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.5, 0.8), (0.0, 0.5)])
LR = st.sampled_from([1e-3, 0.03, 0.5])


def sign_of(t):
    return t.sign() + (t == 0)


@pytest.mark.exact
@given(
    case=cases("batch n"),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    lr=LR,
    more=st.fixed_dictionaries(
        {"betas": BETAS, "eps": st.sampled_from([1e-8, 1e-3, 1.0]), "weight_decay": st.sampled_from([0.0, 0.1, 1.0])}
    ),
)
def test_twenty_steps_equal_those_of_torch(adamw, case, scale, lr, more):
    param = case.normal("batch n")
    exp_avg, exp_avg_sq = torch.zeros_like(param), torch.zeros_like(param)
    theirs = torch.nn.Parameter(exact(param).clone())
    optimizer = torch.optim.AdamW([theirs], lr=lr, **more)
    for step in range(1, 21):
        grad = case.normal("batch n", scale)
        rate = optimizer.param_groups[0]["lr"] = lr / step  # another at each step, as under a schedule
        theirs.grad = exact(grad)
        optimizer.step()
        param, exp_avg, exp_avg_sq = adamw(param, grad, exp_avg, exp_avg_sq, step, rate, **more)
    expected = [theirs, optimizer.state[theirs]["exp_avg"], optimizer.state[theirs]["exp_avg_sq"]]
    within = moment_tolerance(case.dtype, max(more["betas"]))
    assert_close([param, exp_avg, exp_avg_sq], expected, dtype=case.dtype, within=within)


@pytest.mark.exact
@given(case=cases("batch n"), lr=LR, betas=BETAS)
def test_the_first_step_is_lr_in_the_direction_of_a_large_gradient(adamw, case, lr, betas):
    param, zeros = case.normal("batch n"), torch.zeros_like(case.normal("batch n"))
    sign = sign_of(case.normal("batch n"))
    grad = sign * case.uniform("batch n", 1e4, 1e6)
    new, _, _ = adamw(param, grad, zeros, zeros, 1, lr, betas=betas, weight_decay=0.0)
    assert_close(new, param - lr * sign, "bias correction, with step counted from 1")


@pytest.mark.exact
@given(case=cases("batch n"), lr=LR, betas=BETAS)
def test_every_step_is_lr_where_the_gradient_stays_the_same(adamw, case, lr, betas):
    # The corrected averages are then the gradient and its square at every step, and not only in the long run.
    param = start = case.normal("batch n")
    exp_avg, exp_avg_sq, sign = torch.zeros_like(param), torch.zeros_like(param), sign_of(case.normal("batch n"))
    grad = sign * case.uniform("batch n", 1e4, 1e6)
    for step in range(1, 6):
        param, exp_avg, exp_avg_sq = adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas=betas, weight_decay=0.0)
    assert_close(param, start - 5 * lr * sign, "bias correction: it depends on step")


@given(case=cases("batch n"), lr=LR, weight_decay=st.sampled_from([0.01, 0.3]), step=st.integers(1, 100))
def test_a_gradient_of_zero_only_decays_by_lr_times_weight_decay(adamw, case, lr, weight_decay, step):
    param = case.normal("batch n", 100.0)
    zeros = torch.zeros_like(param)
    expected = (param * (1 - lr * weight_decay), zeros, zeros)
    assert_close(adamw(param, zeros, zeros, zeros, step, lr, weight_decay=weight_decay), expected, "decoupled decay")


@given(case=cases("batch n"), lr=LR, step=st.integers(1, 100))
def test_the_step_does_not_depend_on_the_weight_where_there_is_no_decay(adamw, case, lr, step):
    param, grad, exp_avg = (case.normal("batch n") for _ in range(3))
    state = grad, exp_avg, exp_avg.square() + case.uniform("batch n", 0.5, 1.0), step, lr
    from_zero, _, _ = adamw(torch.zeros_like(param), *state, weight_decay=0.0)
    assert_close(adamw(param, *state, weight_decay=0.0)[0], param + from_zero)


CHANGES = {
    "step": {"step": 9},
    "lr": {"lr": 0.2},
    "beta1": {"betas": (0.5, 0.95)},
    "beta2": {"betas": (0.9, 0.5)},
    "eps": {"eps": 0.5},
    "weight_decay": {"weight_decay": 0.5},
}


@pytest.mark.parametrize("name", CHANGES)
@given(case=cases("batch n"))
def test_every_hyper_parameter_matters(adamw, name, case):
    param, grad, exp_avg = (case.normal("batch n") for _ in range(3))
    state = param, grad, exp_avg, exp_avg.square() + case.uniform("batch n", 0.5, 1.0)
    usual = {"step": 2, "lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    if torch.equal(adamw(*state, **usual)[0], adamw(*state, **(usual | CHANGES[name]))[0]):
        fail(f"{name} has no influence")


@pytest.mark.exact
def test_many_elements_have_the_step_of_the_formula(adamw):
    # More than fit into a cache: kernels take some elements after others.
    case = Case({"n": 300_000}, torch.float32, seed=0)
    param, grad, average = (case.normal("n") for _ in range(3))
    given = param, grad, average, average.square(), 7, 1e-2
    expected = FORMULA.adamw(*exact(given))
    for ours, theirs in zip(adamw(*given), expected, strict=True):
        assert_close(ours, theirs, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.99, 0.9999)])
def test_the_betas_keep_their_precision_in_half_precision(adamw, dtype, betas):
    # bfloat16 has nothing between 0.996 and 1.
    for step in (1, 10, 1000):
        case = Case({"n": 64}, dtype, seed=step)
        param, grad, average = (case.normal("n") for _ in range(3))
        given = param, grad, average, average.square() + case.uniform("n"), step, 0.5, betas
        assert_close(adamw(*given), FORMULA.adamw(*exact(given)), "betas in the dtype of the weights", dtype=dtype)
