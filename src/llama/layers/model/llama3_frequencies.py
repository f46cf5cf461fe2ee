"""Llama 3.1's frequencies: slow rotations are slowed further, so that a longer context fits.

    wavelength = 2π / frequency                              (positions per full turn)
    short      = original_context / high_freq_factor
    long       = original_context / low_freq_factor

    wavelength < short:   frequency                          (unchanged)
    wavelength > long:    frequency / factor
    between:              (1 - s) · frequency / factor + s · frequency
                          with s = (original_context / wavelength - low_freq_factor)
                                   / (high_freq_factor - low_freq_factor)

    frequencies [n] -> [n]

s is 0 where the wavelength is long and 1 where it is short, so the result is continuous at both ends. It
has the dtype of frequencies, mostly float64, and is computed in it.

Raises ValueError unless all parameters are positive and low_freq_factor < high_freq_factor.
Source: Llama 3.1's reference code, apply_scaling in models/llama3/reference_impl/model.py; the same as
`rope_type: llama3` in a Hugging Face config.json.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(
    frequencies: Tensor | ndarray,
    factor: float = 8.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    original_context: float = 8192,
) -> None:
    if not min(factor, low_freq_factor, high_freq_factor, original_context) > 0:
        raise ValueError(
            "llama3_frequencies: factor, low_freq_factor, high_freq_factor and original_context must be positive, "
            f"got {factor}, {low_freq_factor}, {high_freq_factor} and {original_context}"
        )
    if not low_freq_factor < high_freq_factor:
        raise ValueError(
            "llama3_frequencies: low_freq_factor must be below high_freq_factor, "
            f"got {low_freq_factor} and {high_freq_factor}"
        )


@contract(check)
def naive(
    frequencies: Float[ndarray, "n"],
    factor: float = 8.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    original_context: float = 8192,
) -> Float[ndarray, "n"]:
    scaled = np.empty(frequencies.shape)
    for i, frequency in enumerate(frequencies):
        wavelength = 2 * math.pi / frequency
        if wavelength < original_context / high_freq_factor:
            scaled[i] = frequency
        elif wavelength > original_context / low_freq_factor:
            scaled[i] = frequency / factor
        else:
            turns = original_context / wavelength
            s = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
            scaled[i] = (1 - s) * frequency / factor + s * frequency
    return scaled


@contract(check)
def vectorized(
    frequencies: Float[Tensor, "n"],
    factor: float = 8.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    original_context: float = 8192,
) -> Float[Tensor, "n"]:
    turns = original_context * frequencies / (2 * math.pi)
    # Beyond the bridge s would leave [0, 1]; held there, one line serves all three cases.
    s = torch.clamp((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return (1 - s) * frequencies / factor + s * frequencies


fused = vectorized  # a handful of numbers, made once: there is nothing to win
