"""What holds for every layer of plain Python values: it equals the naive one, and it keeps to the general rules.

That no argument is changed, and that the result is made of plain values in memory of its own, is looked at in every
call (tests/judge/subject.py).
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import FLAGS, arguments, calls_of, drawn
from tests.cases.case import LARGE, Case
from tests.cases.sizes import small, very_large
from tests.judge.assertions import assert_equal, assert_equals_formula, assert_equals_naive
from tests.judge.at_once import called_at_once

LONGER = {"seq": (0, 12), "n": (1, 12), "count": (1, 5)}
ROUNDS = 20
"""Calls of each thread."""


@pytest.mark.tensors
@given(data=st.data())
def test_equals_the_naive_loops(python_layer, data):
    name = python_layer.layer
    case = data.draw(drawn(name, **{axis: LONGER[axis] for axis in calls_of(name).sizes.split()}))
    args, kwargs = arguments(name, case)
    assert_equals_naive(python_layer, *args, **kwargs)


@pytest.mark.tensors
def test_each_size_may_be_large(python_layer):
    axes = calls_of(python_layer.layer).sizes.split()
    for seed, axis in enumerate(axes):
        args, kwargs = arguments(python_layer.layer, _case(small(python_layer.layer) | {axis: LARGE[axis] // 10}, seed))
        assert_equals_naive(python_layer, *args, **kwargs)


@pytest.mark.tensors
def test_very_large_sizes_are_right(python_layer):
    for seed, sizes in enumerate(very_large(python_layer.layer)):
        args, kwargs = arguments(python_layer.layer, _case(sizes, seed))
        assert_equals_formula(python_layer, *args, **kwargs)


def test_a_call_is_right_after_any_other_and_whatever_became_of_its_result(python_layer):
    name = python_layer.layer
    kept = "what is kept between calls, under too small a key or in a list that is handed out"
    calls = [arguments(name, _case(dict.fromkeys(small(name), 6), seed)) for seed in range(FLAGS)]
    right = []
    for args, kwargs in calls:
        result = python_layer.function(*args, **kwargs)
        right.append(list(result))
        if isinstance(result, list):
            result.clear()  # it belongs to its caller
    for (args, kwargs), expected in reversed([*zip(calls, right, strict=True)]):
        assert_equal(list(python_layer(*args, **kwargs)), expected, kept)


def test_arguments_may_be_changed_between_calls(python_layer):
    """The same objects with other contents: a list of merges grows while a tokenizer is trained."""
    name = python_layer.layer
    calls = [arguments(name, _case(dict.fromkeys(small(name), 6), seed)) for seed in range(FLAGS)]
    (objects, _), *others = calls
    for args, _ in others:
        objects = tuple(_with_contents(old, new) for old, new in zip(objects, args, strict=True))
        assert_equals_formula(python_layer, *objects, look_at="what is kept between calls: contents, not objects")


def test_it_may_be_called_by_several_threads_at_once(python_layer):
    """Each with arguments of its own; none may see another's."""
    name = python_layer.layer
    calls = [arguments(name, _case(dict.fromkeys(small(name), 20), seed)) for seed in range(4)]
    expected = [python_layer.function(*args, **kwargs) for args, kwargs in calls]
    for results, right in zip(called_at_once(python_layer.function, calls, ROUNDS), expected, strict=True):
        for result in results:
            assert_equal(result, right, "state that threads share")


def _case(sizes, seed):
    return Case(dict(sizes), torch.float64, seed)


def _with_contents(old, new):
    """The old object with what the new one holds; the new one where it cannot be changed."""
    if isinstance(old, list):
        old[:] = new
    elif isinstance(old, dict):
        old.clear()
        old.update(new)
    else:
        return new
    return old
