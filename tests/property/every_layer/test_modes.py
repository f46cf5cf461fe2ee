"""What a call leaves alone, and what may surround it: autocast, inference mode, threads, random numbers, defaults."""

import contextlib
import functools
import itertools
import random

import pytest
import torch

from llama.implementation import map_leaves, tensors
from llama.layers import parameters_of
from tests.cases import target
from tests.cases.calls import FLAGS, arguments, calls_of
from tests.cases.case import Case
from tests.cases.sizes import SMALL
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical, assert_within_autocast, fail
from tests.judge.at_once import called_at_once
from tests.judge.gradients import differentiable
from tests.judge.guards.endings import contained
from tests.judge.subject import unchecked, word


def _calls(layer, dtype, seeds=range(0, FLAGS, 3), **sizes):
    axes = calls_of(layer).sizes.split()
    sizes = {axis: sizes.get(axis, SMALL[axis]) for axis in axes}
    return [arguments(layer, Case(dict(sizes), dtype, seed)) for seed in seeds]


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=word)
def test_within_autocast_only_products_are_in_half_precision(layer, dtype):
    """Angles, norms, softmax and losses stay as exact as the arguments are."""
    turns = "positions" in parameters_of(layer.layer)
    change = _single if not turns else _far_apart if calls_of(layer.layer).multiplies else _far
    for args, kwargs in map_leaves(change, _calls(layer.layer, torch.float32)):
        with torch.autocast(target.DEVICE.type, dtype):
            actual = layer(*args, **kwargs)
        look_at = "what autocast rounds: a product of matrices that stands for an angle, a norm or a sum"
        assert_within_autocast(layer, (args, kwargs), actual, dtype, look_at)


def _single(leaf):
    """Frequencies in float32 too: autocast leaves float64 alone."""
    return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 else leaf


def _far(leaf):
    """Positions that half precision cannot tell apart."""
    return leaf + 1001 if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.int64 else _single(leaf)


def _far_apart(leaf):
    """And so far from each other that half precision has the angles between them wrong too."""
    return leaf * 1009 if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.int64 else _single(leaf)


@pytest.mark.tensors
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_result_beyond_rounding(layer, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for large in (5, 7, 131):
            sizes = {"seq": large, "q_len": large, "n": 67, "d_model": 67, "d_in": 67}
            for args, kwargs in _calls(layer.layer, torch.float32, range(2), **sizes):
                assert_equals_formula(layer, *args, look_at="rows that are shared out to threads", **kwargs)
        if torch.get_num_threads() != threads:
            fail(f"it set the number of threads to {torch.get_num_threads()}", "torch.set_num_threads")
    finally:
        torch.set_num_threads(before)


@pytest.mark.tensors
def test_it_may_be_called_by_several_threads_at_once(layer):
    """Each with arguments of its own; none may see another's."""
    calls = _calls(layer.layer, torch.float32, range(4))
    expected = [tensors(layer.function(*args, **kwargs)) for args, kwargs in calls]
    for results, right in zip(called_at_once(layer.function, calls, 5), expected, strict=True):
        for result in results:
            for a, b in zip(tensors(result), right, strict=True):
                # Not to the last bit: torch shares out a product otherwise in a thread that has not set their number.
                assert_close(a, b, "state that threads share")


@pytest.mark.parametrize("grad_mode", [True, False])
def test_random_numbers_defaults_grad_mode_and_threads_are_left_alone(any_layer, grad_mode):
    for dtype in (torch.float32, torch.float64):
        for args, kwargs in _calls(any_layer.layer, torch.float32):
            with _left_alone(dtype, grad_mode):
                any_layer(*args, **kwargs)


def test_the_same_is_left_alone_where_a_call_raises(layer):
    """As one of many that a server answers: the next one must not be computed in its dtype."""
    for dtype in target.ALL:
        call = _calls(layer.layer, dtype, seeds=[0])[0]
        for missing in range(len(tensors(call))):
            numbers = itertools.count()
            args, kwargs = map_leaves(functools.partial(_without, missing, numbers), call)
            with _left_alone(torch.float32, True), contextlib.suppress(Exception), contained("the layer"):
                layer.function(*args, **kwargs)


def _without(missing, numbers, leaf):
    """None in place of the tensor of that number, as they are counted."""
    return None if isinstance(leaf, torch.Tensor) and next(numbers) == missing else leaf


@contextlib.contextmanager
def _left_alone(dtype, grad_mode):
    """Fails where what is done within leaves another state behind, and puts it back."""
    state = random.getstate(), torch.get_rng_state().tolist()
    torch.set_default_dtype(dtype)
    try:
        # beartype, which draws the items of a list that it looks at, is left out.
        with torch.set_grad_enabled(grad_mode), unchecked():
            yield
            left = {
                "grad mode": (torch.is_grad_enabled(), grad_mode),
                "torch's default dtype": (torch.get_default_dtype(), dtype),
                "torch's number of threads": (torch.get_num_threads(), 1),
                "Python's random numbers": (random.getstate() == state[0], True),
                "torch's random numbers": (torch.get_rng_state().tolist() == state[1], True),
            }
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
    for what, (now, before) in left.items():
        if now != before:
            fail(f"it changed {what}", "state of the whole program, which a layer leaves alone")


@pytest.mark.tensors
def test_another_default_dtype_changes_no_result(layer):
    for args, kwargs in _calls(layer.layer, torch.float32):
        torch.set_default_dtype(torch.float64)
        try:
            actual = tensors(layer(*args, **kwargs))
        finally:
            torch.set_default_dtype(torch.float32)
        for a, b in zip(actual, tensors(layer(*args, **kwargs)), strict=True):
            assert_identical(a, b, "a tensor that is made in the default dtype: give it the dtype of an argument")


@pytest.mark.tensors
def test_in_inference_mode_the_values_are_the_same(forward_layer):
    for args, kwargs in _calls(forward_layer.layer, torch.float32):
        with torch.inference_mode():
            actual = tensors(forward_layer(*args, **kwargs))
        for a, b in zip(actual, tensors(forward_layer(*args, **kwargs)), strict=True):
            assert_identical(a, b, "a path of its own without gradients")


@pytest.mark.tensors
def test_without_grad_mode_the_result_asks_for_no_gradient(differentiable_layer):
    for args, kwargs in _calls(differentiable_layer.layer, torch.float32):
        leaves, call = differentiable(differentiable_layer.layer, differentiable_layer, args, kwargs)
        with torch.no_grad():
            graph = call(*leaves).grad_fn
        # torch.jit keeps the grad mode of the calls that it was compiled for.
        if graph is not None and "torch::jit" not in graph.name():
            fail("the result asks for a gradient under no_grad")
