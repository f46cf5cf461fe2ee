"""What defines the frequencies, whatever the sizes. That they equal the naive loops is in every_layer/."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

HALVES = st.integers(1, 64)
THETAS = st.floats(2.0, 1e6)


@given(half=HALVES, theta=THETAS)
def test_the_first_is_exactly_one(rope_frequencies, half, theta):
    assert rope_frequencies(2 * half, theta)[0] == 1


@given(half=st.integers(2, 64), theta=THETAS)
def test_neighbours_have_the_ratio_theta_to_minus_two_over_head_dim(rope_frequencies, half, theta):
    f = rope_frequencies(2 * half, theta)
    assert_close(f[1:] / f[:-1], torch.full_like(f[1:], theta ** (-1 / half)))


def test_every_head_dim_up_to_512_has_the_frequencies_of_the_formula(rope_frequencies):
    for half in range(1, 257):
        expected = tensor([10000.0 ** (-i / half) for i in range(half)], torch.float64)
        assert_close(rope_frequencies(2 * half), expected, "a step that is no whole number")


@given(half=HALVES, theta=THETAS)
def test_there_is_one_for_each_pair_in_float64(rope_frequencies, half, theta):
    f = rope_frequencies(2 * half, theta)
    assert f.shape == (half,)
    assert f.dtype == torch.float64


@given(half=st.integers(2, 64), theta=THETAS)
def test_a_larger_theta_turns_every_pair_but_the_first_more_slowly(rope_frequencies, half, theta):
    assert (rope_frequencies(2 * half, 2 * theta)[1:] < rope_frequencies(2 * half, theta)[1:]).all()
