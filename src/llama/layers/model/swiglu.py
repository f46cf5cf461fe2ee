"""SwiGLU: the feed-forward block of Llama, in which one projection opens and shuts another.

    y = w_down · (silu(w_gate · x) * (w_up · x))          (* is elementwise)

    x [... d_model], w_gate [d_ff d_model], w_up [d_ff d_model], w_down [d_model d_ff] -> [... d_model]

The gate is activated, the up-projection is not. Each token is computed by itself. Llama takes d_ff near
8/3 · d_model, so that three matrices cost what two cost at 4 · d_model. All four arguments have one dtype,
which is that of the result.

Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6 (FFN_SwiGLU).
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
def naive(
    x: Float[ndarray, "... d_model"],
    w_gate: Float[ndarray, "d_ff d_model"],
    w_up: Float[ndarray, "d_ff d_model"],
    w_down: Float[ndarray, "d_model d_ff"],
) -> Float[ndarray, "... d_model"]:
    d_ff, d_model = w_gate.shape
    y = np.empty(x.shape)
    for token in np.ndindex(x.shape[:-1]):
        hidden = []
        for f in range(d_ff):
            gate, up = 0.0, 0.0
            for i in range(d_model):
                gate += w_gate[f, i] * x[*token, i]
                up += w_up[f, i] * x[*token, i]
            # silu(gate), in the form whose exponential cannot overflow.
            sigmoid = 1 / (1 + math.exp(-gate)) if gate >= 0 else math.exp(gate) / (1 + math.exp(gate))
            hidden.append(gate * sigmoid * up)
        for i in range(d_model):
            total = 0.0
            for f in range(d_ff):
                total += w_down[i, f] * hidden[f]
            y[*token, i] = total
    return y


@contract(one_dtype=True)
def vectorized(
    x: Float[Tensor, "... d_model"],
    w_gate: Float[Tensor, "d_ff d_model"],
    w_up: Float[Tensor, "d_ff d_model"],
    w_down: Float[Tensor, "d_model d_ff"],
) -> Float[Tensor, "... d_model"]:
    gate, up = x @ w_gate.T, x @ w_up.T
    return (gate * torch.sigmoid(gate) * up) @ w_down.T


@contract(one_dtype=True)
def fused(
    x: Float[Tensor, "... d_model"],
    w_gate: Float[Tensor, "d_ff d_model"],
    w_up: Float[Tensor, "d_ff d_model"],
    w_down: Float[Tensor, "d_model d_ff"],
) -> Float[Tensor, "... d_model"]:
    return F.linear(F.silu(F.linear(x, w_gate)) * F.linear(x, w_up), w_down)
