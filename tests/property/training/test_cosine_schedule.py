"""What defines the schedule, whatever its numbers. That it equals the naive one is in every_layer/."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.judge.assertions import assert_close, fail


@dataclass(frozen=True)
class Schedule:
    """The last four arguments. Peaks of 1 and more: at 1e-4 an error would hide below the tolerance."""

    peak_lr: float
    warmup_steps: int
    total_steps: int
    min_lr: float

    def rate(self, cosine_schedule, step):
        return cosine_schedule(step, self.peak_lr, self.warmup_steps, self.total_steps, self.min_lr)


def schedules(warmup=(0, 50), decay=(1, 100)):
    make = st.tuples(st.floats(1, 10), st.integers(*warmup), st.integers(*decay), st.sampled_from([0.0, 0.1, 0.5]))
    return make.map(lambda drawn: Schedule(drawn[0], drawn[1], drawn[1] + drawn[2], drawn[3] * drawn[0]))


@given(schedule=schedules(warmup=(1, 50)), data=st.data())
def test_the_warm_up_is_a_straight_line_from_just_above_zero_to_the_peak(cosine_schedule, schedule, data):
    step = data.draw(st.integers(0, schedule.warmup_steps - 1))
    expected = schedule.peak_lr * (step + 1) / schedule.warmup_steps
    assert_close(schedule.rate(cosine_schedule, step), expected, "(step + 1) / warmup_steps")


@given(schedule=schedules(warmup=(1, 10_000)))
def test_the_rate_is_never_zero_on_the_way_up(cosine_schedule, schedule):
    if not schedule.rate(cosine_schedule, 0) > 0:
        fail("the first step learns nothing", "the warm-up: step counts from 0, so it starts at 1 / warmup_steps")


@given(schedule=schedules(decay=(1, 10_000)))
def test_the_peak_is_at_the_end_of_the_warm_up(cosine_schedule, schedule):
    assert_close(schedule.rate(cosine_schedule, schedule.warmup_steps), schedule.peak_lr)


@given(schedule=schedules(), data=st.data())
def test_from_the_peak_on_every_step_is_lower_than_the_one_before(cosine_schedule, schedule, data):
    step = data.draw(st.integers(schedule.warmup_steps, schedule.total_steps - 1))
    before, after = schedule.rate(cosine_schedule, step), schedule.rate(cosine_schedule, step + 1)
    if not after < before:
        fail(f"at step {step} the rate is {before:.7g}, and {after:.7g} one step later")


@given(schedule=schedules(decay=(0, 10_000)), later=st.integers(0, 30_000))
def test_from_total_steps_on_the_rate_is_the_minimum(cosine_schedule, schedule, later):
    rate = schedule.rate(cosine_schedule, schedule.total_steps + later)
    assert_close(rate, schedule.min_lr, "what follows total_steps")


@given(schedule=schedules(decay=(2, 100)), data=st.data())
def test_what_is_missing_to_the_peak_early_is_left_above_the_minimum_late(cosine_schedule, schedule, data):
    steps = data.draw(st.integers(0, schedule.total_steps - schedule.warmup_steps))
    missing = schedule.peak_lr - schedule.rate(cosine_schedule, schedule.warmup_steps + steps)
    left = schedule.rate(cosine_schedule, schedule.total_steps - steps) - schedule.min_lr
    assert_close(missing, left, "progress: from 0 at warmup_steps to 1 at total_steps")


@given(schedule=schedules(decay=(2, 100)), data=st.data())
def test_twice_the_progress_is_twice_the_angle(cosine_schedule, schedule, data):
    # cos(2a) = 2 cos(a)² - 1: only a cosine has it, a straight line does not.
    steps = data.draw(st.integers(0, (schedule.total_steps - schedule.warmup_steps) // 2))

    def cosine(step):
        rate = schedule.rate(cosine_schedule, schedule.warmup_steps + step)
        return (2 * rate - schedule.peak_lr - schedule.min_lr) / (schedule.peak_lr - schedule.min_lr)

    assert_close(cosine(2 * steps), 2 * cosine(steps) ** 2 - 1, "the shape of the descent")


@given(schedule=schedules(), data=st.data())
def test_a_minimum_equal_to_the_peak_is_a_constant_rate_after_the_warm_up(cosine_schedule, schedule, data):
    step = data.draw(st.integers(schedule.warmup_steps, 2 * schedule.total_steps))
    rate = cosine_schedule(step, schedule.peak_lr, schedule.warmup_steps, schedule.total_steps, schedule.peak_lr)
    assert_close(rate, schedule.peak_lr)
