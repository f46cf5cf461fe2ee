"""What defines clipping, whatever the sizes. That it equals the naive loops is in every_layer/."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_identical
from tests.judge.subject import exact

SIZES = "batch seq n count"
# Large enough that no tolerance hides an error.
SCALES = st.sampled_from([1.0, 100.0, 1e4])


def gradients(case, scale):
    return [case.normal(axes, scale) for axes in ("batch n", "n", "seq batch n", "")[: case.count]]


def joint_norm(grads):
    """In float64, on the CPU."""
    return torch.stack([grad.square().sum() for grad in exact(list(grads))]).sum().sqrt()


@given(case=cases(SIZES, target.ALL), above=st.sampled_from([1.1, 2.0, 1e6]))
def test_below_the_limit_no_bit_changes(clip_grad_norm, case, above):
    grads = gradients(case, 1.0)
    clipped, _ = clip_grad_norm(grads, above * joint_norm(grads).item())
    for after, before in zip(clipped, grads, strict=True):
        assert_identical(after, before, "clipping is for what is above the limit")


@given(case=cases(SIZES), scale=SCALES, part=st.sampled_from([1e-3, 0.3, 0.9]))
def test_above_the_limit_the_joint_norm_becomes_the_limit(clip_grad_norm, case, scale, part):
    grads = gradients(case, scale)
    max_norm = part * joint_norm(grads)
    clipped, _ = clip_grad_norm(grads, max_norm.item())
    assert_close(tensor(joint_norm(clipped), case.dtype), max_norm, "one norm over the whole list", dtype=case.dtype)


@given(case=cases(SIZES), scale=SCALES, part=st.sampled_from([1e-3, 0.3, 0.9]))
def test_above_the_limit_the_direction_is_kept(clip_grad_norm, case, scale, part):
    grads = gradients(case, scale)
    norm = joint_norm(grads)
    clipped, _ = clip_grad_norm(grads, part * norm.item())
    # Unit vectors in all the dimensions together.
    after = [tensor(grad / (part * norm), case.dtype) for grad in exact(list(clipped))]
    assert_close(after, [grad / norm for grad in exact(grads)], dtype=case.dtype)


@given(case=cases(SIZES), scale=SCALES, part=st.sampled_from([1e-3, 0.9, 1.1, 1e3]))
def test_the_norm_is_the_one_before_clipping(clip_grad_norm, case, scale, part):
    grads = gradients(case, scale)
    norm = joint_norm(grads)
    _, actual = clip_grad_norm(grads, part * norm.item())
    wide = torch.promote_types(case.dtype, torch.float32)
    assert_close(tensor(float(actual), wide), norm, "the norm, in float32 at least", dtype=wide)


@given(case=cases(SIZES), max_norm=st.sampled_from([1e-6, 1.0]))
def test_zero_gradients_stay_zero(clip_grad_norm, case, max_norm):
    zeros = [torch.zeros_like(grad) for grad in gradients(case, 1.0)]
    assert_close(clip_grad_norm(zeros, max_norm)[0], zeros, "a division by a norm of zero")


@given(case=cases(SIZES, count=(2, 4)))
def test_how_the_elements_are_spread_over_tensors_does_not_matter(clip_grad_norm, case):
    grads = gradients(case, 10.0)
    together = torch.cat([grad.flatten() for grad in grads])
    max_norm = 0.5 * joint_norm(grads).item()
    apart = torch.cat([grad.flatten() for grad in clip_grad_norm(grads, max_norm)[0]])
    assert_close(apart, clip_grad_norm([together], max_norm)[0][0], "one norm over the whole list")
