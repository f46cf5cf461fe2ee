"""The learning rate rises in a straight line to its peak, then falls along half a cosine."""

import pytest

from tests.judge.assertions import assert_close


def rate(cosine_schedule, step, warmup_steps=4, total_steps=12):
    return cosine_schedule(step, 1.0, warmup_steps, total_steps, 0.2)


def test_the_first_step_already_learns(cosine_schedule):
    assert_close(rate(cosine_schedule, 0), 0.25, "step counts from 0: the rate is peak_lr · (step + 1) / warmup_steps")


def test_each_step_of_the_warm_up_adds_as_much(cosine_schedule):
    assert_close([rate(cosine_schedule, step) for step in (1, 2)], [0.5, 0.75])


def test_the_last_step_of_the_warm_up_is_at_the_peak(cosine_schedule):
    assert_close(rate(cosine_schedule, 3), 1.0)


def test_the_cosine_starts_at_the_peak(cosine_schedule):
    assert_close(rate(cosine_schedule, 4), 1.0, "progress: 0 at step = warmup_steps")


def test_half_way_down_is_half_way_between_peak_and_minimum(cosine_schedule):
    # progress = (8 - 4) / (12 - 4) = 1/2, and cos(π/2) = 0.
    assert_close(rate(cosine_schedule, 8), 0.6)


def test_the_way_down_is_a_cosine(cosine_schedule):
    # cos(π/4) = 0.707107: 0.2 + 0.8 · 1.707107 / 2 and 0.2 + 0.8 · 0.292893 / 2. A straight line gives 0.8, 0.4.
    assert_close([rate(cosine_schedule, step) for step in (6, 10)], [0.882843, 0.317157])


def test_the_last_step_is_a_little_above_the_minimum(cosine_schedule):
    # cos(7π/8) = -0.923880: 0.2 + 0.8 · 0.076120 / 2.
    assert_close(rate(cosine_schedule, 11), 0.230448, "progress: 1 at step = total_steps")


def test_the_minimum_is_reached_at_total_steps(cosine_schedule):
    assert_close(rate(cosine_schedule, 12), 0.2)


@pytest.mark.parametrize("step", [13, 16, 20, 1000])
def test_the_minimum_stays(cosine_schedule, step):
    assert_close(rate(cosine_schedule, step), 0.2, "what follows total_steps: the cosine would rise again")


def test_without_warm_up_the_first_step_is_at_the_peak(cosine_schedule):
    assert_close(rate(cosine_schedule, 0, warmup_steps=0), 1.0)


def test_where_all_is_warm_up_the_minimum_follows_the_peak(cosine_schedule):
    assert_close([rate(cosine_schedule, step, 4, 4) for step in (3, 4)], [1.0, 0.2])


def test_no_steps_at_all_are_at_the_minimum(cosine_schedule):
    assert_close(rate(cosine_schedule, 0, 0, 0), 0.2)


def test_it_climbs_to_the_peak_and_glides_down_to_the_minimum(cosine_schedule, plot):
    rates = [cosine_schedule(step, 1.0, 10, 100, 0.2) for step in range(121)]
    plot(range(121), {"learning rate": rates}, xlabel="step", title="learning rate: 10 steps of warm-up, 100 in all")
    assert_close(rates[9], 1.0)
    assert_close(rates[9:101], sorted(rates[9:101], reverse=True))
    assert_close(rates[100:], [0.2] * 21)


@pytest.mark.refusal
def test_a_negative_step_is_refused(cosine_schedule):
    with pytest.raises(ValueError, match="cosine_schedule: step counts from 0, got -1"):
        cosine_schedule(-1, 1.0, 4, 12, 0.2)


@pytest.mark.refusal
@pytest.mark.parametrize("warmup_steps", [-1, 13])
def test_a_warm_up_longer_than_all_steps_is_refused_and_so_is_a_negative_one(cosine_schedule, warmup_steps):
    sentence = rf"cosine_schedule: warmup_steps must lie in 0\.\.total_steps=12, got {warmup_steps}"
    with pytest.raises(ValueError, match=sentence):
        cosine_schedule(0, 1.0, warmup_steps, 12, 0.2)


@pytest.mark.refusal
@pytest.mark.parametrize("min_lr", [-0.1, 1.5])
def test_a_minimum_above_the_peak_is_refused_and_so_is_a_negative_one(cosine_schedule, min_lr):
    with pytest.raises(ValueError, match=rf"cosine_schedule: min_lr must lie in 0\.\.peak_lr=1\.0, got {min_lr}"):
        cosine_schedule(0, 1.0, 4, 12, min_lr)
