"""The bugs that people make in cosine_schedule."""

import math

from llama import implementation

LAYERS = implementation.load("vectorized")


def probes():
    return [
        ((4, 0.5, 4, 4, 0.1), {}),
        ((3, 0.5, 0, 9, 0.1), {}),
        ((0, 0.5, 40, 90, 0.1), {}),
        ((50, 0.5, 7, 111, 0.0), {}),
        lambda layer: [layer(6, 0.5, 2, 9, 0.1), layer(6, 0.3, 3, 12, 0.0)],
    ]


def first_step_learns_nothing(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the warm-up is step / warmup_steps, so that the first step, step 0, has a rate of zero.

    Tempting: one counts steps from 1 and forgets that the loop counts from 0.
    Seen: meta-pytorch/torchtune#2010.
    """
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)


def warm_up_one_step_longer(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the warm-up is (step + 1) / (warmup_steps + 1), so that its last step is still below the peak.

    Tempting: it mends a first step of zero, and the ends seem to fit: step = warmup_steps gives the peak.
    Seen: karpathy/nanoGPT#578.
    """
    if step < warmup_steps:
        return peak_lr * (step + 1) / (warmup_steps + 1)
    return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)


def rises_again(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine goes on after total_steps, so that the rate rises again.

    Tempting: the formula needs no third case as long as training ends when the schedule says so.
    Seen: Tencent-Hunyuan/UniRL#223.
    """
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps) if total_steps > warmup_steps else 1.0
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def progress_counted_from_the_first_step(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the progress is step / total_steps, the warm-up included, so that the rate drops right after the warm-up.

    Tempting: a cosine over the whole training is written first, and the warm-up put before it later.
    Seen: huggingface/pytorch-image-models#1242.
    """
    if step < warmup_steps or step >= total_steps:
        return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * step / total_steps)) / 2


def cosine_to_zero_held_at_the_minimum(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine falls to zero and is cut off at min_lr, instead of falling to min_lr.

    Tempting: `max(min_lr, ...)` around a schedule without a minimum gives it one.
    """
    return max(min_lr, LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, 0.0))


def no_steps_after_the_warm_up(step, peak_lr, warmup_steps, total_steps, min_lr):
    """where the warm-up takes all steps, the step after it is a division by zero, and not min_lr.

    Tempting: the progress is computed first and held at 1 then; total_steps - warmup_steps is only zero here.
    Seen: mosaicml/composer#1077.
    """
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def no_warm_up_is_a_division_by_zero(step, peak_lr, warmup_steps, total_steps, min_lr):
    """a warm-up of no steps is a division by zero.

    Tempting: the smaller of warm-up and cosine needs no branch, and everybody has a warm-up.
    """
    return min(
        peak_lr * (step + 1) / warmup_steps if step < warmup_steps or not warmup_steps else peak_lr,
        LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr),
    )


def warm_up_not_below_the_minimum(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the warm-up starts no lower than min_lr.

    Tempting: a minimum sounds as if it held everywhere.
    """
    return max(min_lr, LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr))


_KEPT = {}


def kept_by_step(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the rate is kept by step, so that another schedule gets that of the first.

    Tempting: every group of parameters asks for it anew, and a program has one schedule.
    """
    return _KEPT.setdefault(step, LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr))


def straight_line(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the rate falls along a straight line, and not along a cosine.

    Tempting: both ends are right, and so is the middle.
    """
    if step < warmup_steps or step >= total_steps:
        return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    return peak_lr - (peak_lr - min_lr) * (step - warmup_steps) / (total_steps - warmup_steps)


def minimum_ignored(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the rate falls to zero, whatever the minimum is.

    Tempting: half of 1 + cos falls to zero by itself.
    """
    return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, 0.0)


def whole_turn(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine makes a whole turn, so that the rate is back at its peak in the end.

    Tempting: a turn is 2 pi.
    """
    if step < warmup_steps or step >= total_steps:
        return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(2 * math.pi * progress)) / 2


def half_forgotten(step, peak_lr, warmup_steps, total_steps, min_lr):
    """1 + cos is not divided by 2, so that the fall starts from nearly twice the peak.

    Tempting: a cosine seems to go from 1 to 0, but it goes from 1 to -1.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: 1 + math.cos(math.pi * p))


def quarter_of_a_turn(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the fall is the first quarter of a cosine, cos(π/2 · progress), which ends steeply.

    Tempting: it goes from 1 to 0 by itself, and needs neither the 1 nor the half.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: math.cos(math.pi / 2 * p))


def sine_for_the_cosine(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the fall has a sine in place of the cosine.

    Tempting: both are waves, and which of them starts at 1 is easily forgotten.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: (1 + math.sin(math.pi * p)) / 2)


def cosine_subtracted(step, peak_lr, warmup_steps, total_steps, min_lr):
    """it is 1 - cos and not 1 + cos, so that the rate rises from min_lr to the peak.

    Tempting: a fall seems to need a minus.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: (1 - math.cos(math.pi * p)) / 2)


def pi_forgotten(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine is taken of the progress itself, without π, so that the rate hardly falls.

    Tempting: progress goes from 0 to 1, as if that were all the way.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: (1 + math.cos(p)) / 2)


def angle_in_degrees(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine is taken of 180 times the progress, as if it were in degrees.

    Tempting: half a turn is 180 degrees; math.cos takes radians.
    """
    return _falling(step, peak_lr, warmup_steps, total_steps, min_lr, lambda p: (1 + math.cos(180 * p)) / 2)


def minimum_added_on_top(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the cosine falls from peak_lr to 0 and min_lr is added to it, so that it starts above the peak.

    Tempting: adding the minimum puts the end where it belongs.
    """
    rate = LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, 0.0)
    return rate if step < warmup_steps else rate + min_lr


def progress_over_all_steps(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the progress is (step - warmup_steps) / total_steps, so that the rate jumps down to min_lr in the end.

    Tempting: total_steps sounds like what one divides by.
    """
    if step < warmup_steps or step >= total_steps:
        return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    progress = (step - warmup_steps) / total_steps
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def one_step_ahead(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the progress is counted from step + 1, so that the fall begins one step too early.

    Tempting: the warm-up has a step + 1 too.
    """
    ahead = step if step < warmup_steps else step + 1
    return LAYERS.cosine_schedule(ahead, peak_lr, warmup_steps, total_steps, min_lr)


def warm_up_forgotten(step, peak_lr, warmup_steps, total_steps, min_lr):
    """there is no warm-up: the first steps have the peak rate.

    Tempting: the cosine is what the schedule is named after.
    """
    rate = LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    return peak_lr if step < warmup_steps else rate


def warm_up_from_the_minimum(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the warm-up rises from min_lr to the peak, and not from 0.

    Tempting: a minimum sounds as if it held everywhere.
    """
    if step < warmup_steps:
        return min_lr + (peak_lr - min_lr) * (step + 1) / warmup_steps
    return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)


def _falling(step, peak_lr, warmup_steps, total_steps, min_lr, left):
    """Right before and after the fall; `left` says how much of it is still to come at a progress."""
    if step < warmup_steps or step >= total_steps:
        return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    return min_lr + (peak_lr - min_lr) * left((step - warmup_steps) / (total_steps - warmup_steps))


def progress_in_whole_numbers(step, peak_lr, warmup_steps, total_steps, min_lr):
    """the progress is divided with //, so that the rate stays at its peak until it falls to min_lr at total_steps.

    Tempting: both numbers are whole, and // raises no error.
    """
    if warmup_steps <= step < total_steps:
        return peak_lr
    return LAYERS.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
