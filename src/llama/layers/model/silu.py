"""SiLU (swish): a smooth ReLU.

    y = x · sigmoid(x) = x / (1 + exp(-x))

    x [...] -> [...]

Its minimum is -0.2785 near x = -1.2785. sigmoid is computed so that exp never overflows, in value or
in gradient. The result has the dtype of x.

Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2; Ramachandran et al. 2017.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


@contract()
def naive(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    y = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        # Of the two equal forms, the one whose exponent is not positive.
        if x[i] >= 0:
            y[i] = x[i] / (1 + math.exp(-x[i]))
        else:
            y[i] = x[i] * math.exp(x[i]) / (1 + math.exp(x[i]))
    return y


@contract()
def vectorized(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return x * torch.sigmoid(x)


@contract()
def fused(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return F.silu(x)
