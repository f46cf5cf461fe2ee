"""RoPE frequencies: how fast each pair of features turns, in radians per position."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_eight_features_turn_at_four_speeds(rope_frequencies):
    # 10000^(0, -2/8, -4/8, -6/8) = 1, 1/10, 1/100, 1/1000.
    expected = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    assert_close(rope_frequencies(8), expected, "the exponent: -2i/head_dim, i from 0")


def test_another_theta_gives_other_speeds(rope_frequencies):
    # 16^(0, -1/2) = 1, 1/4.
    assert_close(rope_frequencies(4, 16.0), torch.tensor([1.0, 0.25], dtype=torch.float64))


def test_a_theta_below_one_gives_rising_speeds(rope_frequencies):
    # (1/16)^(0, -1/2) = 1, 4.
    assert_close(rope_frequencies(4, 1 / 16), torch.tensor([1.0, 4.0], dtype=torch.float64))


def test_one_pair_turns_one_radian_per_position(rope_frequencies):
    assert_close(rope_frequencies(2), torch.tensor([1.0], dtype=torch.float64))


def test_each_pair_turns_more_slowly_than_the_one_before_by_the_same_factor(rope_frequencies, plot):
    speeds = {theta: rope_frequencies(64, theta) for theta in (1e4, 5e5)}
    lines = {f"theta {theta:,.0f}": speed for theta, speed in speeds.items()}
    plot(range(32), lines, "o", yscale="log", xlabel="pair", ylabel="radians per position", title="head_dim 64")
    turns = {f"theta {theta:,.0f}": 2 * torch.pi / speed for theta, speed in speeds.items()}
    plot(range(32), turns, "o", yscale="log", xlabel="pair", ylabel="positions per turn", title="the wavelengths")
    for theta, speed in speeds.items():
        assert_close(speed[1:] / speed[:-1], torch.full((31,), theta ** (-1 / 32), dtype=torch.float64))


@pytest.mark.refusal
@pytest.mark.parametrize("head_dim", [7, 0, -2])
def test_a_head_dim_that_has_no_pairs_is_refused(rope_frequencies, head_dim):
    with pytest.raises(ValueError, match=f"rope_frequencies: head_dim must be even and positive, got {head_dim}"):
        rope_frequencies(head_dim)


@pytest.mark.refusal
def test_a_theta_that_is_not_positive_is_refused(rope_frequencies):
    with pytest.raises(ValueError, match=r"rope_frequencies: theta must be positive, got 0\.0"):
        rope_frequencies(8, 0.0)


def test_the_result_belongs_to_the_caller(rope_frequencies):
    # As where a context is extended in place.
    f = rope_frequencies(4, 100.0)
    f /= 8
    assert_close(
        rope_frequencies(4, 100.0), tensor([1.0, 0.1], torch.float64), "a result that is kept and given out again"
    )
