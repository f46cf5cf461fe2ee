"""The gradients of every layer that has some: those of the formula, in every dtype, for every argument.

`vectorized` in float64 is what they are compared with; that its gradients are the derivatives of its values is what
test_the_gradient_is_the_derivative proves.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.implementation import map_leaves
from tests.cases import target
from tests.cases.calls import FLAGS, SAME_FLAGS, arguments, calls_of, drawn
from tests.cases.case import LAYOUTS, Case, laid_out
from tests.cases.sizes import small
from tests.judge.assertions import assert_close, assert_finite, fail
from tests.judge.gradients import (
    assert_gradients_equal_the_formula,
    compare_gradients,
    differentiable,
    leaf_names,
    upstream,
    vjp,
)
from tests.judge.subject import FORMULA
from tests.judge.tolerances import DERIVATIVE, STEP


@pytest.mark.tensors
@given(data=st.data())
def test_the_values_are_the_same_where_gradients_are_wanted(differentiable_layer, data):
    name = differentiable_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, target.ALL, layouts=True)))
    leaves, call = differentiable(name, differentiable_layer, args, kwargs)
    expected = differentiable_layer.expected(*args, **kwargs)
    assert_close(call(*leaves).detach(), expected, "a path of its own for training", dtype=leaves[0].dtype)


@pytest.mark.tensors
@given(data=st.data())
def test_the_gradients_equal_those_of_the_formula_in_every_dtype(differentiable_layer, data):
    name = differentiable_layer.layer
    call = arguments(name, data.draw(drawn(name, target.ALL, layouts=True)))
    assert_gradients_equal_the_formula(differentiable_layer, call)


@pytest.mark.tensors
@pytest.mark.float64
@given(data=st.data())
def test_the_gradient_is_the_derivative(differentiable_layer, data):
    name = differentiable_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, [torch.float64])))
    leaves, call = differentiable(name, differentiable_layer, args, kwargs)
    # In one direction that moves all tensors at once. torch's gradcheck would do the same, but where it fails it goes
    # on to each element of each tensor, which takes minutes.
    sizes = [t.numel() for t in leaves]
    joined = torch.arange(1, sum(sizes) + 1, device=leaves[0].device).double().sin()  # no two tensors move alike
    direction = [part.view(t.shape) for part, t in zip(joined.split(sizes), leaves, strict=True)]
    out = call(*leaves)
    toward = upstream(out)
    gradients = vjp(out, leaves, toward)
    along = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    with torch.no_grad():
        ahead, behind = (
            call(*(t + step * d for t, d in zip(leaves, direction, strict=True))) for step in (STEP, -STEP)
        )
    look_at = "the gradient is not the derivative"
    assert_close(along, ((ahead - behind) * toward).sum() / (2 * STEP), look_at, within=DERIVATIVE, name="the slope")


@pytest.mark.tensors
@pytest.mark.parametrize("scale", [0.0, 1e-4, pytest.param(1e4, marks=pytest.mark.exact)])
@given(data=st.data())
def test_values_and_gradients_are_finite_at_extreme_inputs(differentiable_layer, scale, data):
    name = differentiable_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, [torch.float32])))
    first = calls_of(name).gradients[0]
    args = (*args[:first], map_leaves(lambda t: t * scale, args[first]), *args[first + 1 :])
    leaves, call = differentiable(name, differentiable_layer, args, kwargs)
    out = call(*leaves)
    assert_finite(out)
    for of, gradient in zip(leaf_names(name, args), torch.autograd.grad(out.sum(), leaves), strict=True):
        assert_finite(gradient, name=f"the gradient of {of}")


# What follows is about how gradients are asked for, for which one size will do, with various flags.


def _calls(layer, seeds=range(0, FLAGS, 3), dtype=torch.float32):
    sizes = small(layer)
    return [arguments(layer, Case(dict(sizes), dtype, seed)) for seed in seeds]


@pytest.mark.tensors
@pytest.mark.parametrize("layout", LAYOUTS[1:-1])
def test_the_upstream_gradient_may_lie_in_memory_in_any_way(differentiable_layer, layout):
    for dtype in target.ALL:
        for call in _calls(differentiable_layer.layer, dtype=dtype):
            assert_gradients_equal_the_formula(
                differentiable_layer,
                call,
                lambda out: laid_out(upstream(out), layout),
                look_at=f"an upstream gradient that is {layout}: its strides",
            )


@pytest.mark.tensors
def test_an_argument_has_its_gradient_also_where_it_alone_asks_for_one(differentiable_layer):
    name = differentiable_layer.layer
    for args, kwargs in _calls(name):
        for only in range(len(differentiable(name, differentiable_layer, args, kwargs)[0])):
            look_at = f"a gradient of argument {only + 1} that is only computed where another one is asked for"
            assert_gradients_equal_the_formula(differentiable_layer, (args, kwargs), only=only, look_at=look_at)


@pytest.mark.tensors
def test_two_calls_before_one_backward_pass_each_have_their_own_gradient(differentiable_layer):
    name = differentiable_layer.layer
    for seed in range(0, FLAGS, 3):
        both = _calls(name, (seed, seed + SAME_FLAGS))
        pairs = [differentiable(name, differentiable_layer, *call) for call in both]
        outs = [call(*leaves) for leaves, call in pairs]
        together = [leaf for leaves, _ in pairs for leaf in leaves]
        gradients = iter(vjp(outs, together, [upstream(out) for out in outs]))
        for (leaves, _), call, out in zip(pairs, both, outs, strict=True):
            own = [next(gradients) for _ in leaves]
            look_at = "what is kept for backward: each call needs its own"
            compare_gradients(name, own, leaves, call, upstream(out), look_at=look_at)


@pytest.mark.tensors
def test_backward_may_be_called_twice_with_other_upstream_gradients(differentiable_layer):
    name = differentiable_layer.layer
    for args, kwargs in _calls(name):
        leaves, call = differentiable(name, differentiable_layer, args, kwargs)
        out = call(*leaves)
        for factor in (1, -3, 0.5):
            toward = factor * upstream(out)
            gradients = vjp(out, leaves, toward, retain_graph=True)
            look_at = "what is kept for backward, which the first backward pass has written over"
            compare_gradients(name, gradients, leaves, (args, kwargs), toward, look_at=look_at)


@pytest.mark.tensors
def test_the_upstream_gradient_is_not_changed(differentiable_layer):
    name = differentiable_layer.layer
    for args, kwargs in _calls(name):
        leaves, call = differentiable(name, differentiable_layer, args, kwargs)
        out = call(*leaves)
        toward = upstream(out)
        before = toward.clone()
        vjp(out, leaves, toward)
        if not torch.equal(toward, before):
            fail("backward changed the upstream gradient, which other layers still need")


@pytest.mark.tensors
@pytest.mark.float64
def test_second_derivatives_are_right_or_raise(differentiable_layer):
    name = differentiable_layer.layer
    for args, kwargs in _calls(name, dtype=torch.float64):
        asked = [
            differentiable(name, function, args, kwargs) for function in (differentiable_layer, getattr(FORMULA, name))
        ]
        try:
            second, expected = ([*_second(*pair)] for pair in asked)
        except (RuntimeError, NotImplementedError):
            continue  # it says that there are none
        for i, (actual, right) in enumerate(zip(second, expected, strict=True)):
            hidden = "a NaN within: nan_to_num takes it out of the value, and not out of the derivative"
            look_at = hidden if actual.isnan().any() else "a backward pass that autograd cannot see into"
            assert_close(actual, right, look_at, name=f"second derivative {i + 1} at ")


def _second(leaves, call):
    """The gradients of the sum of the squares of the gradients; zeros where a leaf has no part in it."""
    out = call(*leaves)
    # The upstream gradient asks for one too, as that of a layer above does, and all of the graph is gone through: then
    # a backward pass that autograd cannot see into (torch's once_differentiable) raises, as it may.
    first = vjp(out, leaves, upstream(out).requires_grad_(), create_graph=True)
    total = sum(g.square().sum() for g in first if g.requires_grad)
    if not isinstance(total, torch.Tensor):  # the layer is linear
        return [torch.zeros_like(leaf) for leaf in leaves]
    total.backward()
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
