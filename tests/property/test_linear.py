"""What defines linear, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

from hypothesis import given
from hypothesis import strategies as st

from tests.assertions import assert_close, assert_identical
from tests.strategies import cases


@given(case=cases("batch seq d_in d_out"))
def test_it_is_additive(linear, case):
    x, y, weight = case.normal("batch seq d_in"), case.normal("batch seq d_in"), case.normal("d_out d_in")
    assert_close(linear(x + y, weight), linear(x, weight) + linear(y, weight))


@given(case=cases("batch seq d_in d_out"), factor=st.sampled_from([-3.0, 0.0, 0.5, 100.0]))
def test_it_is_homogeneous(linear, case, factor):
    x, weight = case.normal("batch seq d_in"), case.normal("d_out d_in")
    assert_close(linear(factor * x, weight), factor * linear(x, weight))


@given(case=cases("batch seq d_in"))
def test_the_unit_vector_i_picks_column_i_of_a_square_weight(linear, case):
    weight = case.normal("d_in d_in")
    for i in range(case.d_in):
        unit = weight.new_zeros(case.batch, case.d_in)
        unit[:, i] = 1
        assert_close(linear(unit, weight), weight[:, i].expand(case.batch, -1), "the weight is [d_out d_in]")


@given(case=cases("batch seq d_in d_out", seq=(2, 7)))
def test_no_other_token_has_any_influence(linear, case):
    x, weight = case.normal("batch seq d_in"), case.normal("d_out d_in")
    changed = x.clone()
    changed[:, -1] += 100
    assert_identical(linear(changed, weight)[:, :-1], linear(x, weight)[:, :-1])
