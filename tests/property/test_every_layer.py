"""What holds for every layer: it equals the naive loops, and it keeps to the general rules.

The arguments of each layer come from `tests/strategies.py`; the other files of this folder hold what
defines each layer by itself.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.assertions import assert_equals_naive, fail
from tests.strategies import arguments, calls


@pytest.mark.tensors
@given(data=st.data())
def test_equals_the_naive_loops(layer, data):
    case = data.draw(calls(layer.layer, strategies.ALL, layouts=True))
    args, kwargs = arguments(layer.layer, case)
    assert_equals_naive(layer, *args, **kwargs)
