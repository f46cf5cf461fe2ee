"""The gradient of SwiGLU: the hidden values are computed again, and then it goes back step by step.

    gate = w_gate · x     up = w_up · x     hidden = silu(gate) * up     y = w_down · hidden

    grad_hidden = w_downᵀ · grad                                         grad_down = sum over tokens of grad · hiddenᵀ
    grad_up_f   = grad_hidden * silu(gate)                               of the values up, as grad_gate_f of gate
    grad_gate_f = grad_hidden * up * s * (1 + gate * (1 - s))            s = sigmoid(gate)
    grad_x      = w_gateᵀ · grad_gate_f + w_upᵀ · grad_up_f
    grad_gate   = sum over tokens of grad_gate_f · xᵀ                    grad_up = sum over tokens of grad_up_f · xᵀ

    grad [... d_model], x [... d_model], w_gate [d_ff d_model], w_up [d_ff d_model], w_down [d_model d_ff]
    -> (grad_x, grad_gate, grad_up, grad_down), each like its argument

x reaches y by two ways, through gate and through up, and both gradients add up. Sums are in at least float32.

Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6, and the chain rule.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.gradients import wide

GRADIENTS = ("x", "w_gate", "w_up", "w_down")


@contract()
def naive(
    grad: Float[ndarray, "... d_model"],
    x: Float[ndarray, "... d_model"],
    w_gate: Float[ndarray, "d_ff d_model"],
    w_up: Float[ndarray, "d_ff d_model"],
    w_down: Float[ndarray, "d_model d_ff"],
) -> tuple[
    Float[ndarray, "... d_model"],
    Float[ndarray, "d_ff d_model"],
    Float[ndarray, "d_ff d_model"],
    Float[ndarray, "d_model d_ff"],
]:
    d_ff, d_model = w_gate.shape
    grad_x, grad_gate, grad_up, grad_down = (np.zeros(t.shape) for t in (x, w_gate, w_up, w_down))
    for token in np.ndindex(x.shape[:-1]):
        features, towards = x[token].tolist(), grad[token].tolist()
        for f in range(d_ff):
            gate, up, toward_hidden = 0.0, 0.0, 0.0
            for i in range(d_model):
                gate += w_gate[f, i] * features[i]
                up += w_up[f, i] * features[i]
                toward_hidden += w_down[i, f] * towards[i]
            # In the form whose exponential cannot overflow.
            sigmoid = 1 / (1 + math.exp(-gate)) if gate >= 0 else math.exp(gate) / (1 + math.exp(gate))
            toward_up = toward_hidden * gate * sigmoid
            toward_gate = toward_hidden * up * sigmoid * (1 + gate * (1 - sigmoid))
            for i in range(d_model):
                grad_x[*token, i] += w_gate[f, i] * toward_gate + w_up[f, i] * toward_up
                grad_gate[f, i] += toward_gate * features[i]
                grad_up[f, i] += toward_up * features[i]
                grad_down[i, f] += towards[i] * gate * sigmoid * up
    return grad_x, grad_gate, grad_up, grad_down


@contract()
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "... d_model"],
    x: Float[Tensor, "... d_model"],
    w_gate: Float[Tensor, "d_ff d_model"],
    w_up: Float[Tensor, "d_ff d_model"],
    w_down: Float[Tensor, "d_model d_ff"],
) -> tuple[
    Float[Tensor, "... d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_model d_ff"],
]:
    dtype = wide(grad, x, w_gate, w_up, w_down)
    towards, features = (t.to(dtype).reshape(-1, t.shape[-1]) for t in (grad, x))
    w_g, w_u, w_d = (w.to(dtype) for w in (w_gate, w_up, w_down))
    gate, up = features @ w_g.T, features @ w_u.T
    s = torch.sigmoid(gate)
    toward_hidden = towards @ w_d
    toward_up = toward_hidden * gate * s
    toward_gate = toward_hidden * up * s * (1 + gate * (1 - s))
    grad_x = (toward_gate @ w_g + toward_up @ w_u).view(x.shape)
    grad_gate, grad_up = toward_gate.T @ features, toward_up.T @ features
    grad_down = towards.T @ (gate * s * up)
    gradients = zip((grad_x, grad_gate, grad_up, grad_down), (x, w_gate, w_up, w_down), strict=True)
    grad_x, grad_gate, grad_up, grad_down = (gradient.to(of.dtype) for gradient, of in gradients)
    return grad_x, grad_gate, grad_up, grad_down


@contract()
@torch.no_grad()
def fused(
    grad: Float[Tensor, "... d_model"],
    x: Float[Tensor, "... d_model"],
    w_gate: Float[Tensor, "d_ff d_model"],
    w_up: Float[Tensor, "d_ff d_model"],
    w_down: Float[Tensor, "d_model d_ff"],
) -> tuple[
    Float[Tensor, "... d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_model d_ff"],
]:
    if not grad.dtype == x.dtype == w_gate.dtype == w_up.dtype == w_down.dtype:
        return unchecked(vectorized)(grad, x, w_gate, w_up, w_down)
    towards, features = (t.reshape(-1, t.shape[-1]) for t in (grad, x))
    gate, up = F.linear(features, w_gate), F.linear(features, w_up)
    activated = F.silu(gate)
    toward_hidden = towards @ w_down
    grad_down = towards.T @ (activated * up)
    toward_gate = torch.ops.aten.silu_backward(up.mul_(toward_hidden), gate)
    toward_up = activated.mul_(toward_hidden)
    grad_x = torch.addmm(toward_gate @ w_gate, toward_up, w_up).view(x.shape)
    return grad_x, toward_gate.T @ features, toward_up.T @ features, grad_down
