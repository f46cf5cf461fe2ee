"""Any layout of memory works: transposed, strided, rows that lie apart, with an offset, expanded, all of them at once.

Kernels go wrong here: they take `x.stride(-2)` for the number of features, or read a tensor from the beginning of its
memory.
"""

import pytest

from tests.cases import target
from tests.cases.calls import FLAGS, arguments
from tests.cases.case import LAYOUTS, Case
from tests.cases.sizes import small
from tests.judge.assertions import assert_equals_formula
from tests.judge.gradients import assert_gradients_equal_the_formula


def _calls(layer, layout):
    """A call for each combination of flags, the dtypes in turn."""
    sizes = small(layer)
    for seed in range(FLAGS):
        yield arguments(layer, Case(dict(sizes), target.ALL[seed // 2 % len(target.ALL)], seed, layout))


@pytest.mark.tensors
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_the_same_in_any_layout(layer, layout):
    for args, kwargs in _calls(layer.layer, layout):
        assert_equals_formula(layer, *args, look_at=f"tensors that are {layout}: strides, storage_offset", **kwargs)


@pytest.mark.tensors
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_the_same_in_any_layout(differentiable_layer, layout):
    for call in _calls(differentiable_layer.layer, layout):
        look_at = f"tensors that are {layout}: strides, storage_offset"
        assert_gradients_equal_the_formula(differentiable_layer, call, look_at=look_at)
