"""What defines the frequencies, whatever the sizes. That they equal the naive loops is in every_layer/."""

import torch
from hypothesis import given
from hypothesis import strategies as st

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


@given(half=HALVES, theta=THETAS)
def test_there_is_one_for_each_pair_in_float64(rope_frequencies, half, theta):
    f = rope_frequencies(2 * half, theta)
    assert f.shape == (half,)
    assert f.dtype == torch.float64


@given(half=st.integers(2, 64), theta=THETAS)
def test_a_larger_theta_turns_every_pair_but_the_first_more_slowly(rope_frequencies, half, theta):
    assert (rope_frequencies(2 * half, 2 * theta)[1:] < rope_frequencies(2 * half, theta)[1:]).all()
