"""AdamW: a step against the gradient, each weight at its own pace, with the decay kept apart.

    exp_avg    <- beta1 · exp_avg    + (1 - beta1) · grad
    exp_avg_sq <- beta2 · exp_avg_sq + (1 - beta2) · grad²
    m = exp_avg / (1 - beta1^step)          v = exp_avg_sq / (1 - beta2^step)
    param      <- param - lr · weight_decay · param - lr · m / (sqrt(v) + eps)

    param, grad, exp_avg, exp_avg_sq [...], step, lr -> (param, exp_avg, exp_avg_sq), new tensors

Decoupled: the decay shrinks the weight itself and never enters the averages. `step` counts from 1: the
averages start at zero, and dividing by 1 - beta^step takes that start out again. eps stands outside the
square root, after the correction. float16 and bfloat16 are computed in float32 and returned in their own
dtype. What is returned carries no graph.

Raises ValueError for a step below 1, betas outside [0, 1), and a negative lr, eps or weight_decay.
Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with the decay
times lr as in torch.optim.AdamW; Kingma and Ba 2015, "Adam", algorithm 1.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(
    param: Tensor | ndarray,
    grad: Tensor | ndarray,
    exp_avg: Tensor | ndarray,
    exp_avg_sq: Tensor | ndarray,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> None:
    if step < 1:
        raise ValueError(f"adamw: step counts from 1, got {step}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"adamw: betas must be two in [0, 1), got {betas}")
    if not (lr >= 0 and eps >= 0 and weight_decay >= 0):  # NaN is not
        raise ValueError(f"adamw: lr, eps and weight_decay must not be negative, got {lr}, {eps} and {weight_decay}")


@contract(check)
def naive(
    param: Float[ndarray, "..."],
    grad: Float[ndarray, "..."],
    exp_avg: Float[ndarray, "..."],
    exp_avg_sq: Float[ndarray, "..."],
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> tuple[Float[ndarray, "..."], Float[ndarray, "..."], Float[ndarray, "..."]]:
    (beta1, beta2), new = betas, [np.empty(param.shape) for _ in range(3)]
    for i in np.ndindex(param.shape):
        average = beta1 * exp_avg[i] + (1 - beta1) * grad[i]
        average_square = beta2 * exp_avg_sq[i] + (1 - beta2) * grad[i] * grad[i]
        m = average / (1 - beta1**step)
        v = average_square / (1 - beta2**step)
        new[0][i] = param[i] - lr * weight_decay * param[i] - lr * m / (math.sqrt(v) + eps)
        new[1][i] = average
        new[2][i] = average_square
    return new[0], new[1], new[2]


@contract(check, one_dtype=True)
def vectorized(
    param: Float[Tensor, "..."],
    grad: Float[Tensor, "..."],
    exp_avg: Float[Tensor, "..."],
    exp_avg_sq: Float[Tensor, "..."],
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    (beta1, beta2), dtype = betas, param.dtype
    # float16 has neither an eps of 1e-8 nor the squares of small gradients.
    wide = torch.promote_types(dtype, torch.float32)
    param, grad, exp_avg, exp_avg_sq = (t.detach().to(wide) for t in (param, grad, exp_avg, exp_avg_sq))
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad.square()
    m = exp_avg / (1 - beta1**step)
    v = exp_avg_sq / (1 - beta2**step)
    param = param - lr * weight_decay * param - lr * m / (v.sqrt() + eps)
    return param.to(dtype), exp_avg.to(dtype), exp_avg_sq.to(dtype)


@contract(check, one_dtype=True)
def fused(
    param: Float[Tensor, "..."],
    grad: Float[Tensor, "..."],
    exp_avg: Float[Tensor, "..."],
    exp_avg_sq: Float[Tensor, "..."],
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    new = [t.detach().clone(memory_format=torch.contiguous_format) for t in (param, exp_avg, exp_avg_sq)]
    move(new[:1], [grad], new[1:2], new[2:], step, lr, betas, eps, weight_decay)
    return new[0], new[1], new[2]


def move(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """The same in place, for many weights at once; all but the gradients contiguous.

    Straight to torch's kernel, which does not look at strides: for few elements torch.optim's function around it
    takes several times as long.
    """
    torch._fused_adamw_(
        params,
        [grad.detach().contiguous() for grad in grads],
        exp_avgs,
        exp_avg_sqs,
        [],
        [torch.tensor(float(step), dtype=torch.float32, device=params[0].device)] * len(params),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=False,
        maximize=False,
    )
