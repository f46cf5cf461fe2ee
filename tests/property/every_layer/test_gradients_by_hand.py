"""What holds for every gradient that is written by hand: it is the derivative of its layer.

Three proofs of each: the slope of the naive loops in any direction, what autograd makes of plain torch, and what a
derivative has to obey. What is known of one layer alone stands in property/gradients.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.implementation import map_leaves, tensors
from llama.layers import gradients_of, parameters_of
from tests.cases.calls import arguments, calls_of, drawn
from tests.cases.case import Case
from tests.cases.sizes import small
from tests.judge.assertions import assert_close, assert_like, in_order, result_names
from tests.judge.subject import FORMULA, REFERENCE, exact
from tests.judge.tolerances import DERIVATIVE, STEP, tolerance


def _point(name, layers, args, kwargs):
    """The layer that this is the gradient of, in float64; see `forward` in tests/cases/calls.py."""
    return calls_of(name).forward(layers, *exact(args), **exact(kwargs))


def _gradients(name, result):
    """The gradients in a result, in the order of their names, and these names; without the loss of llama_backward."""
    parts = result[-len(gradients_of(name)) :] if isinstance(result, tuple) else (result,)
    names = result_names(name, result)
    found = in_order(parts)
    return found, names[len(names) - len(found) :]


def _in_order_of_names(name, args, kwargs, values):
    """What belongs to the arguments that have a gradient, in the order in which `_gradients` has the gradients."""
    given = dict(zip(parameters_of(name), args, strict=False)) | kwargs
    left = iter(values)
    if any(isinstance(given[of], dict) for of in gradients_of(name)):
        return in_order(
            [
                {key: next(left) for key in given[of]} if isinstance(given[of], dict) else next(left)
                for of in gradients_of(name)
            ]
        )
    return list(left)


@pytest.mark.tensors
@pytest.mark.float64
@given(data=st.data())
def test_it_is_what_autograd_makes_of_the_layer(gradient_layer, data):
    name = gradient_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, [torch.float64], layouts=True)))
    function, at, grad = _point(name, FORMULA, args, kwargs)
    leaves = [t.detach().requires_grad_() for t in at]
    expected = _in_order_of_names(name, args, kwargs, torch.autograd.grad(function(*leaves), leaves, grad))
    found, names = _gradients(name, gradient_layer(*args, **kwargs))
    for called, actual, right in zip(names, found, expected, strict=True):
        assert_close(actual, right, "the chain rule: each term of the derivative once", name=called)


@pytest.mark.float64
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_it_is_the_slope_of_the_naive_loops_in_any_direction(gradient_layer, data, seed):
    # <grad, J d> = <gradient, d>: all arguments move at once along a random direction d.
    name = gradient_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, [torch.float64])))
    function, at, grad = _point(name, REFERENCE, args, kwargs)
    draw = torch.Generator().manual_seed(seed)
    direction = [torch.randn(t.shape, generator=draw, dtype=t.dtype) for t in at]
    ahead, behind = (function(*(t + step * d for t, d in zip(at, direction, strict=True))) for step in (STEP, -STEP))
    slope = ((ahead - behind) * grad).sum() / (2 * STEP)
    found, _ = _gradients(name, gradient_layer(*args, **kwargs))
    along = sum(
        (g * d.to(g.device)).sum()
        for g, d in zip(found, _in_order_of_names(name, args, kwargs, direction), strict=True)
    )
    assert_close(along, slope, "the gradient is not the derivative", within=DERIVATIVE, name="the slope")


@given(data=st.data())
def test_it_is_linear_in_the_upstream_gradient(upstream_layer, data):
    name = upstream_layer.layer
    case = data.draw(drawn(name))
    (grad, *rest), kwargs = arguments(name, case)
    other = case.upstream(grad.shape)
    a, b, both = (tensors(upstream_layer(g, *rest, **kwargs)) for g in (grad, other, grad + 2 * other))
    for of_a, of_b, of_both in zip(a, b, both, strict=True):
        assert_close(of_both, of_a + 2 * of_b, "something is added that does not depend on grad")


@given(data=st.data())
def test_no_gradient_comes_in_and_none_goes_out(upstream_layer, data):
    name = upstream_layer.layer
    (grad, *rest), kwargs = arguments(name, data.draw(drawn(name, layouts=True)))
    for gradient in tensors(upstream_layer(torch.zeros_like(grad), *rest, **kwargs)):
        assert_close(gradient, torch.zeros_like(gradient), "something is added that does not depend on grad")


@given(data=st.data())
def test_the_gradient_of_a_weight_is_the_sum_over_the_batch(summing_layer, data):
    name = summing_layer.layer
    args, kwargs = arguments(name, data.draw(drawn(name, batch=(2, 3))))
    batched, places = calls_of(name).batched, calls_of(name).batched_results
    whole = summing_layer(*args, **kwargs)
    batch = args[0].shape[0]
    entries = [
        summing_layer(*(a[b : b + 1] if i in batched else a for i, a in enumerate(args)), **kwargs)
        for b in range(batch)
    ]
    for i, part in enumerate(whole):
        if i not in places:
            of_entries = [in_order(entry[i]) for entry in entries]
            for j, gradient in enumerate(in_order(part)):
                assert_close(gradient, sum(of[j] for of in of_entries), "the sum over all tokens, the mean of none")


@pytest.mark.tensors
@pytest.mark.parametrize("wide", range(4))
def test_each_gradient_has_the_dtype_of_its_argument(gradient_layer, wide):
    """Where one argument is float32 and the others bfloat16. To ask for one dtype is right too."""
    name = gradient_layer.layer
    case = Case(small(name), torch.bfloat16, 0)  # or what is claimed instead
    args, kwargs = arguments(name, case)
    floats = [i for i, a in enumerate(args) if tensors(a) and tensors(a)[0].dtype == case.dtype]
    at = floats[wide % len(floats)]
    args = tuple(map_leaves(lambda leaf: _single(leaf, case.dtype), a) if i == at else a for i, a in enumerate(args))
    try:
        result = gradient_layer(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError):
        return
    look_at = "a gradient has the dtype of its argument: end with .to(x.dtype)"
    given = dict(zip(parameters_of(name), args, strict=False)) | kwargs
    arguments_of = in_order([given[of] for of in gradients_of(name)])
    for gradient, called, argument in zip(*_gradients(name, result), arguments_of, strict=True):
        assert_like(gradient, argument, look_at, called)
    if calls_of(name).rounds_within:  # to whichever of the two dtypes each layer in it is given
        return
    expected, _ = _gradients(name, gradient_layer.expected(*args, **kwargs))
    for gradient, called, right in zip(*_gradients(name, result), expected, strict=True):
        assert_close(gradient, right, within=tolerance(case.dtype), dtype=gradient.dtype, name=called)


def _single(leaf, dtype):
    return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype == dtype else leaf


@pytest.mark.tensors
def test_it_is_the_same_with_and_without_grad_mode_and_for_parameters(gradient_layer):
    name = gradient_layer.layer
    args, kwargs = arguments(name, Case(small(name), torch.float32, 0))
    expected = tensors(gradient_layer(*args, **kwargs))
    asking = map_leaves(_asking, args)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            actual = tensors(gradient_layer(*asking, **kwargs))
        for a, e in zip(actual, expected, strict=True):
            assert_close(a.detach(), e, "grad mode: a model that trains by hand has it off")


def _asking(leaf):
    is_float = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.detach().requires_grad_() if is_float else leaf
