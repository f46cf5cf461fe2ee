"""Learning-rate schedule: a straight rise, then half a cosine down.

    step < warmup_steps:  peak_lr · (step + 1) / warmup_steps
    then:                 min_lr + (peak_lr - min_lr) · (1 + cos(π · progress)) / 2
                          with progress = (step - warmup_steps) / (total_steps - warmup_steps)
    step >= total_steps:  min_lr

    step, peak_lr, warmup_steps, total_steps, min_lr -> learning rate

`step` counts from 0, and the first step already learns: the rate is never zero on the way up. It is
peak_lr at step = warmup_steps and min_lr from step = total_steps on.

Raises ValueError for a negative step, unless 0 <= warmup_steps <= total_steps and 0 <= min_lr <= peak_lr.
Source: Loshchilov and Hutter 2017, "SGDR", equation 5; the warm-up as in Goyal et al. 2017, section 2.2.
"""

import math

from llama.contract import contract


def check(step: int, peak_lr: float, warmup_steps: int, total_steps: int, min_lr: float) -> None:
    if step < 0:
        raise ValueError(f"cosine_schedule: step counts from 0, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"cosine_schedule: warmup_steps must lie in 0..total_steps={total_steps}, got {warmup_steps}")
    if not 0 <= min_lr <= peak_lr:
        raise ValueError(f"cosine_schedule: min_lr must lie in 0..peak_lr={peak_lr}, got {min_lr}")


@contract(check)
def naive(step: int, peak_lr: float, warmup_steps: int, total_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


vectorized = fused = naive  # one number: there is nothing to vectorize
