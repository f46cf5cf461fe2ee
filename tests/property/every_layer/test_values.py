"""What holds for every layer: it equals the naive loops, and it keeps to the general rules.

The arguments of each layer come from its file in tests/cases; the other files of this folder
hold what defines each layer by itself.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama.implementation import map_leaves, tensors
from tests.cases import target
from tests.cases.calls import FLAGS, arguments, calls_of, drawn
from tests.cases.case import LARGE, RANGES, Case
from tests.cases.sizes import small
from tests.judge.assertions import assert_close, assert_equals_naive, assert_identical, assert_like, fail, result_dtypes


@pytest.mark.tensors
@given(data=st.data())
def test_equals_the_naive_loops(layer, data):
    case = data.draw(drawn(layer.layer, target.ALL, layouts=True))
    args, kwargs = arguments(layer.layer, case)
    assert_equals_naive(layer, *args, **kwargs)


@pytest.mark.tensors
@given(data=st.data())
def test_every_size_may_be_one(layer, data):
    ones = dict.fromkeys(calls_of(layer.layer).sizes.split(), (1, 1)) | {"more": (0, 0)}
    args, kwargs = arguments(layer.layer, data.draw(drawn(layer.layer, target.ALL, **ones)))
    assert_equals_naive(layer, *args, **kwargs)


@pytest.mark.tensors
def test_each_size_may_be_beyond_the_blocks_in_which_kernels_work(layer):
    axes, make = calls_of(layer.layer).sizes, calls_of(layer.layer).arguments
    for seed, axis in enumerate(axes.split()):
        sizes = {name: LARGE[name] if name == axis else max(RANGES[name][0], 1) for name in axes.split()}
        args, kwargs = make(Case(sizes, torch.float32, seed))
        assert_equals_naive(layer, *args, look_at=f"what limits {axis}", **kwargs)


@given(data=st.data())
def test_the_result_has_the_dtype_and_the_device_of_the_argument(layer, data):
    args, kwargs = arguments(layer.layer, data.draw(drawn(layer.layer, target.ALL)))
    floats = [t for t in tensors((args, kwargs)) if t.is_floating_point()]
    results = tensors(layer(*args, **kwargs))
    dtypes = result_dtypes(floats[0].dtype, len(results)) if floats else []
    for out, dtype in zip(results, dtypes, strict=False):  # another test counts them
        if out.is_floating_point():
            right = out.dtype if isinstance(dtype, tuple) and out.dtype in dtype else dtype
            assert_like(out, floats[0].to(right))


@given(data=st.data())
def test_no_argument_is_changed(layer, data):
    args, kwargs = arguments(layer.layer, data.draw(drawn(layer.layer, layouts=True)))
    before = [_memory(t).clone() for t in tensors((args, kwargs))]
    layer(*args, **kwargs)
    if not all(torch.equal(_memory(t), copy) for t, copy in zip(tensors((args, kwargs)), before, strict=True)):
        fail("an argument was changed in place, or the memory that it lies in")


@given(data=st.data())
def test_the_same_call_gives_the_same_bits(layer, data):
    args, kwargs = arguments(layer.layer, data.draw(drawn(layer.layer)))
    first, second = (tensors(layer(*args, **kwargs)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert_identical(a, b, "memory that is read before it is written, or state kept between calls")


@given(data=st.data())
def test_each_batch_entry_is_computed_as_if_it_were_alone(batched_layer, data):
    name = batched_layer.layer
    case = data.draw(drawn(name, batch=(2, 3)))
    args, kwargs = arguments(name, case)
    together = _of_the_batch(name, batched_layer(*args, **kwargs))
    for b in range(case.batch):
        args_b, kwargs_b = _entry(name, args, kwargs, slice(b, b + 1))
        alone = _of_the_batch(name, batched_layer(*args_b, **kwargs_b))
        for of_one, of_all in zip(alone, together, strict=True):
            assert_close(of_one, of_all[b : b + 1], "sums or statistics taken over the batch")


@given(data=st.data())
def test_an_empty_batch_gives_an_empty_result(batched_layer, data):
    name = batched_layer.layer
    case = data.draw(drawn(name, batch=(2, 3)))
    args, kwargs = arguments(name, case)
    expected = _of_the_batch(name, batched_layer(*args, **kwargs))
    args, kwargs = _entry(name, args, kwargs, slice(0, 0))
    for actual, of_all in zip(_of_the_batch(name, batched_layer(*args, **kwargs)), expected, strict=True):
        assert_identical(actual, of_all[:0])


@pytest.mark.tensors
@pytest.mark.parametrize("axes", [0, 1, 2, 3, 4])
def test_there_may_be_any_number_of_leading_axes(layer, axes):
    places = calls_of(layer.layer).leading
    for seed in range(FLAGS if places else 1):
        sizes = small(layer.layer)
        args, kwargs = arguments(layer.layer, Case(sizes, torch.float32, seed))
        args = tuple(_led(a, axes) if i in places else a for i, a in enumerate(args))
        assert_equals_naive(layer, *args, look_at="dim=1 or dim=2 where the last axis is meant, dim=-1", **kwargs)


SHAPES = {2: (3, 2), 3: (2, 1, 3), 4: (1, 3, 1, 2)}


def _led(t, axes):
    """The tensor [batch seq ...] with so many axes in place of these two."""
    rows = t.flatten(0, 1)  # 6 of them
    return rows[0] if axes == 0 else rows.unflatten(0, SHAPES[axes]) if axes > 1 else rows


def test_parameters_of_a_module_give_plain_tensors(layer):
    args, kwargs = map_leaves(_parameter, arguments(layer.layer, Case(small(layer.layer), torch.float32, 0)))
    with torch.no_grad():
        layer(*args, **kwargs)  # which refuses what is not a plain tensor


def _parameter(leaf):
    is_float = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return torch.nn.Parameter(leaf, requires_grad=False) if is_float else leaf


@pytest.mark.tensors
def test_mappings_are_read_by_name_in_whatever_order_they_are(layer):
    for seed in range(2):
        sizes = {axis: 2 if axis == "n_layers" else size for axis, size in small(layer.layer).items()}
        args, kwargs = arguments(layer.layer, Case(sizes, torch.float32, seed))
        turned = tuple(dict(reversed(a.items())) if isinstance(a, dict) else a for a in args)
        assert_equals_naive(layer, *turned, look_at="weights.values(): weights by name, weights[name]", **kwargs)


def _memory(t):
    """All bytes of the memory that the tensor lies in, also those between its rows."""
    return torch.empty(0, dtype=torch.uint8, device=t.device).set_(t.untyped_storage())


def _of_the_batch(layer, result):
    """The results that have a batch axis."""
    return [result[i] for i in calls_of(layer).batched_results] if isinstance(result, tuple) else [result]


def _entry(layer, args, kwargs, rows):
    """The arguments for these entries of the batch alone."""

    def cut(key, value):
        axes = calls_of(layer).batched.get(key)
        return value if axes is None or value is None or value.ndim < axes else value[rows]

    return tuple(cut(i, a) for i, a in enumerate(args)), {k: cut(k, v) for k, v in kwargs.items()}
