"""Llama 3.1's frequencies: slow rotations are slowed further, so that a longer context fits."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

# With factor 8, low 1, high 4 and a context of 8192: wavelengths below 2048 stay, those above 8192 are
# divided by 8, and in between is a bridge.
TURN = 2 * math.pi


def test_a_short_wavelength_is_untouched(llama3_frequencies):
    assert_close(llama3_frequencies(tensor([1.0, TURN / 2000])), tensor([1.0, TURN / 2000]))


def test_a_long_wavelength_is_divided_by_the_factor(llama3_frequencies):
    assert_close(1e3 * llama3_frequencies(tensor([TURN / 10000])), 1e3 * tensor([TURN / 10000 / 8]))


def test_in_between_the_two_are_mixed(llama3_frequencies):
    # Wavelength 8192 / 2.5: s = (2.5 - 1) / (4 - 1) = 1/2, so the mean of f/8 and f, which is 9/16 · f.
    f = TURN * 2.5 / 8192
    assert_close(1e3 * llama3_frequencies(tensor([f])), 1e3 * tensor([9 / 16 * f]))


def test_the_parameters_are_factor_low_high_and_context_in_this_order(llama3_frequencies):
    # Context 100: short below 100/5 = 20, long above 100/2 = 50; wavelength 100/3 has s = (3 - 2) / (5 - 2) = 1/3.
    f = TURN * 3 / 100
    actual = llama3_frequencies(tensor([TURN / 19, f, TURN / 51]), 4.0, 2.0, 5.0, 100)
    assert_close(actual, tensor([TURN / 19, 2 / 3 * f / 4 + 1 / 3 * f, TURN / 51 / 4]))


def test_a_longer_wavelength_is_never_slowed_less(llama3_frequencies, plot):
    frequencies = 500_000.0 ** -torch.linspace(0, 1, 64, dtype=torch.float64)
    slowed = llama3_frequencies(tensor(frequencies.tolist(), torch.float64))
    times = frequencies / slowed.cpu().double()
    ends = {f"_{end}": torch.tensor([[end, end], [1.0, 8.0]]) for end in (2048.0, 8192.0)}
    labels = {"xlabel": "wavelength in positions", "xticks": [10, 100, 2048, 8192, 100_000, 1_000_000]}
    labels |= {"xticklabels": ["10", "100", "2048  ", "  8192", "100k", "1M"], "title": "how many times slower"}
    plot(TURN / frequencies, ends | {"times": times}, "o-", xscale="log", ylabel="original / rescaled", **labels)
    assert times[0] == 1
    assert_close(tensor(times[-1]), tensor(8.0, torch.float64))
    assert (times.diff() >= 0).all()


def test_a_factor_of_one_changes_nothing_and_still_makes_a_new_tensor(llama3_frequencies):
    frequencies = tensor([TURN / 19, TURN / 33, TURN / 51])
    assert_close(llama3_frequencies(frequencies, 1.0, 2.0, 5.0, 100), frequencies)


@pytest.mark.refusal
def test_a_low_factor_above_the_high_one_is_refused(llama3_frequencies):
    with pytest.raises(ValueError, match=r"low_freq_factor must be below high_freq_factor, got 4\.0 and 4\.0"):
        llama3_frequencies(torch.ones(2), 8.0, 4.0, 4.0)


@pytest.mark.refusal
def test_a_factor_of_zero_is_refused(llama3_frequencies):
    with pytest.raises(ValueError, match=r"must be positive, got 0\.0, 1\.0, 4\.0 and 8192"):
        llama3_frequencies(torch.ones(2), 0.0)
