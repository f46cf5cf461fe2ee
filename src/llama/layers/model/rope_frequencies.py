"""RoPE frequencies: how fast each pair of features turns, in radians per position.

    frequency_i = theta^(-2i / head_dim)          for i = 0 .. head_dim/2 - 1

    head_dim, theta -> [head_dim/2] float64

i counts pairs from 0, so the first pair turns by exactly one radian per position and the last by little
more than 1/theta. float64, since an angle is a frequency times a position of up to 131,072.

Raises ValueError where head_dim is odd or not positive, or theta is not positive.
Source: Su et al. 2021, "RoFormer", section 3.2.2 (its i counts from 1, with the exponent -2(i-1)/d).
"""

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(head_dim: int, theta: float = 10000.0) -> None:
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"rope_frequencies: head_dim must be even and positive, got {head_dim}")
    if not theta > 0:
        raise ValueError(f"rope_frequencies: theta must be positive, got {theta}")


@contract(check)
def naive(head_dim: int, theta: float = 10000.0) -> Float64[ndarray, "half"]:
    frequencies = np.empty(head_dim // 2)
    for i in range(head_dim // 2):
        frequencies[i] = theta ** (-2 * i / head_dim)
    return frequencies


@contract(check)
def vectorized(head_dim: int, theta: float = 10000.0) -> Float64[Tensor, "half"]:
    return theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


fused = vectorized  # a handful of numbers, made once: there is nothing to win
