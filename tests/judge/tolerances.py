"""How far a right answer may lie from the exact one: one row per dtype, with its reason.

An element may differ by `tolerance(dtype) · (|expected| + scale)`, where scale is the largest magnitude in
the expected tensor, but at least 1: sums cancel, so an element near zero carries the error of its terms.
Never multiplied by the array's size: the sizes that are swept are small.
"""

import torch

from tests.cases.calls import calls_of

TOLERANCES = {
    # 2^-53 per rounding. A sum of a few hundred terms in another order, with another exp, stays below 1e-12.
    torch.float64: 1e-11,
    # 2^-24 = 6e-8 per rounding: room for some fifty in a row, and for the GPU's fast exp.
    torch.float32: 3e-6,
    # 2^-11 = 5e-4 per rounding: room for eight, as where scores, weights and their products are all rounded.
    torch.float16: 4e-3,
    # 2^-9 = 2e-3 per rounding: room for eight, likewise.
    torch.bfloat16: 16e-3,
}

HALF = (torch.float16, torch.bfloat16)

# Of what is returned in float32 though the arguments are half precision, as the logarithm of a sum of exponentials:
# kernels for half precision take an exp that is exact to some 2^-14. Rounded to float16 it would be off by 2^-12.
OF_HALF = 2.0**-14

# The prefix test and the entropy test compare means over many tokens, computed in float32 in two ways.
LOSS = 1e-5


# A derivative in float64 as the difference of two values, `STEP` ahead and behind: the values are exact to 1e-16, so
# their difference over twice the step to 1e-11 times what is added up in it, and the curve bends by the square of the
# step, times its third derivative, which may be large where a norm is near zero.
STEP, DERIVATIVE = 1e-5, 1e-6


def tolerance(dtype: torch.dtype, layer: str = "") -> float:
    """The row of that dtype; for a layer that turns by angles, float64 is held to float32, which the contract asks of
    angles. The turn itself is held to float64 at position 0, where no angle is rounded."""
    return TOLERANCES[torch.float32 if dtype == torch.float64 and layer and calls_of(layer).turns else dtype]


def rounding(dtype: torch.dtype, layer: str, of_formula: float, largest: float) -> float:
    """What is allowed beyond the tolerance, where the plain formula has this error in the same dtype.

    Twice that error, as flash-attention's tests allow: a right layer may sum in another order and round in other
    places, but not much more often. Never more than eight tolerances of the largest element, or than 10,000 terms of
    one sign cost that float32 adds up one after the other: a formula that was wrong itself would excuse nothing else.
    """
    return min(2 * of_formula, max(8 * tolerance(dtype, layer), 10_000 * 2.0**-25) * (1 + largest))


def angle_tolerance(positions: torch.Tensor) -> float:
    """For rotations far out: an angle of n radians in float32 has a spacing of n · 2^-23.

    Frequency, product and cosine argument are each rounded, hence three roundings of half a spacing.
    """
    return tolerance(torch.float32) + 3 * float(positions.abs().max()) * 2.0**-24


def score_tolerance(dtype: torch.dtype, largest: torch.Tensor | float) -> float:
    """For softmax weights that are made anew from scores so large and the logarithm of their sum.

    Score, logarithm and difference are each rounded, as exactly as 2^-24 of the largest (2^-53 in float64), and exp
    turns that error into a relative one. It stands in the weights, and in what is made of them a second time.
    """
    unit = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    return tolerance(dtype) + 6 * float(largest) * unit


def moment_tolerance(dtype: torch.dtype, beta: float) -> float:
    """For running averages of float32 kernels, which may take 1 - beta in float32: it is as exact as beta's 2^-24."""
    rounded = 0.0 if dtype == torch.float64 else 2.0**-24 / (1 - beta)
    return tolerance(dtype) + rounded
