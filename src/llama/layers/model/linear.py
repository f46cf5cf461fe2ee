"""Linear: each output is a weighted sum of the inputs.

    y_o = sum_i weight[o, i] · x_i          (y = x · weightᵀ)

    x [... d_in], weight [d_out d_in] -> [... d_out]

The weight is stored [out in], as torch.nn.Linear and Hugging Face checkpoints store it. No bias: Llama
has none. x and weight have one dtype, which is that of the result; the sum is in at least float32.

Source: Touvron et al. 2023, "LLaMA", section 2.2; torch.nn.Linear for the orientation of the weight.
"""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


@contract()
def naive(x: Float[ndarray, "... d_in"], weight: Float[ndarray, "d_out d_in"]) -> Float[ndarray, "... d_out"]:
    y = np.empty((*x.shape[:-1], len(weight)))
    rows = weight.tolist()  # Python's floats are the same float64, and much faster in a loop than NumPy's
    for token in np.ndindex(x.shape[:-1]):
        features = x[token].tolist()
        for o, row in enumerate(rows):
            total = 0.0
            for w, feature in zip(row, features, strict=True):
                total += w * feature
            y[*token, o] = total
    return y


@contract(one_dtype=True)
def vectorized(x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "... d_out"]:
    return x @ weight.T


@contract(one_dtype=True)
def fused(x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "... d_out"]:
    return F.linear(x, weight)
