"""The gradient of SwiGLU: the hidden values are computed again, and then it goes back step by step.

    gate = w_gate · x     up = w_up · x     hidden = silu(gate) * up     y = w_down · hidden

    toward_hidden = w_downᵀ · grad
    toward_up     = toward_hidden * silu(gate)
    toward_gate   = toward_hidden * s * (1 + gate * (1 - s)) * up          s = sigmoid(gate)

    grad_x    = w_gateᵀ · toward_gate + w_upᵀ · toward_up
    grad_gate = sum over tokens of toward_gate · xᵀ
    grad_up   = sum over tokens of toward_up · xᵀ
    grad_down = sum over tokens of grad · hiddenᵀ

    grad [... d_model], x [... d_model], w_gate [d_ff d_model], w_up [d_ff d_model], w_down [d_model d_ff]
    -> (grad_x, grad_gate, grad_up, grad_down), each like its argument

x reaches y by two ways, through gate and through up, and both gradients add up. The slope of a shut gate is zero, also
where toward_hidden * up alone would be too large for float16. Sums are in at least float32.

Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6, and the chain rule.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract, unchecked
from llama.layers.model import CACHED, wide

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
            toward_gate = toward_hidden * sigmoid * (1 + gate * (1 - sigmoid)) * up
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
    towards, features = (_tokens(t.to(dtype)) for t in (grad, x))
    w_g, w_u, w_d = (w.to(dtype) for w in (w_gate, w_up, w_down))
    gate, up = features @ w_g.T, features @ w_u.T
    s = torch.sigmoid(gate)
    toward_hidden = towards @ w_d
    toward_up = toward_hidden * gate * s
    toward_gate = toward_hidden * s * (1 + gate * (1 - s)) * up
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
    kept: Any = None,
) -> tuple[
    Float[Tensor, "... d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_ff d_model"],
    Float[Tensor, "d_model d_ff"],
]:
    one_dtype = grad.dtype == x.dtype == w_gate.dtype == w_up.dtype == w_down.dtype
    if not one_dtype or torch.is_autocast_enabled(x.device.type):  # whose products have another dtype than the weights
        return unchecked(vectorized)(grad, x, w_gate, w_up, w_down)
    towards, features = _tokens(grad), _tokens(x)
    gate, up, activated, hidden = kept or _hidden(features, w_gate, w_up)
    toward_hidden = towards @ w_down
    toward_gate, few = torch.empty_like(gate), CACHED // max(1, gate.shape[1]) + 1
    for i in range(0, len(gate), few):  # some tokens at a time, so that what is computed between stays in the cache
        part = slice(i, i + few)
        torch.ops.aten.silu_backward.grad_input(toward_hidden[part], gate[part], grad_input=toward_gate[part])
        toward_gate[part].mul_(up[part])  # after the slope, or float16 overflows where the gate is shut
        toward_hidden[part].mul_(activated[part])
    toward_up = toward_hidden
    grad_x = toward_gate @ w_gate
    grad_x += toward_up @ w_up
    return grad_x.view(x.shape), toward_gate.T @ features, toward_up.T @ features, towards.T @ hidden


def forward(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> tuple[Tensor, dict[str, Any]]:
    kept = _hidden(_tokens(x), w_gate, w_up)
    return F.linear(kept.hidden, w_down).view(x.shape), {"kept": kept}


class _Kept(NamedTuple):
    """All that is computed between the projections, for each token."""

    gate: Float[Tensor, "tokens d_ff"]
    up: Float[Tensor, "tokens d_ff"]
    activated: Float[Tensor, "tokens d_ff"]
    hidden: Float[Tensor, "tokens d_ff"]


def _hidden(x: Tensor, w_gate: Tensor, w_up: Tensor) -> _Kept:
    gate = F.linear(x, w_gate)
    activated, up = F.silu(gate), F.linear(x, w_up)
    return _Kept(gate, up, activated, activated * up)


def _tokens(x: Float[Tensor, "... n"]) -> Float[Tensor, "tokens n"]:
    """One axis in place of the leading ones; with a size of -1, torch would refuse tokens without a feature."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
