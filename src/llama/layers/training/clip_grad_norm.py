"""Gradient clipping: if all gradients together are longer than a limit, shorten them all alike.

    norm  = sqrt(sum of the squares of every element of every gradient)
    grads <- grads · max_norm / norm         where norm > max_norm; unchanged, to the last bit, elsewhere

    grads: a list of [...], max_norm -> (the list of clipped gradients, the norm before, a tensor of no axes)

One norm over the whole list, so the direction of the step is kept; clipping each tensor by itself would
bend it. Squares are summed in at least float32, and the norm is returned so: float16 ends at 65,504. Each
gradient keeps its own dtype. The norm of an empty list is 0. What is returned carries no graph.

Raises ValueError where max_norm is not positive.
Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
"""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from llama.contract import contract


def check(grads: list[Tensor] | list[ndarray], max_norm: float) -> None:
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be positive, got {max_norm}")


@contract(check)
def naive(
    grads: list[Float[ndarray, "..."]], max_norm: float
) -> tuple[list[Float[ndarray, "..."]], Float[ndarray, ""]]:
    total = 0.0
    for grad in grads:
        for i in np.ndindex(grad.shape):
            total += grad[i] * grad[i]
    norm = math.sqrt(total)
    clipped = [grad.copy() for grad in grads]
    if norm > max_norm:
        for grad in clipped:
            for i in np.ndindex(grad.shape):
                grad[i] = float(grad[i]) * max_norm / norm
    return clipped, np.array(norm)


@contract(check)
def vectorized(
    grads: list[Float[Tensor, "..."]], max_norm: float
) -> tuple[list[Float[Tensor, "..."]], Float[Tensor, ""]]:
    if not grads:
        return [], torch.zeros(())
    wide = [grad.detach().to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads]
    norm = torch.stack([grad.square().sum() for grad in wide]).sum().sqrt()
    # max_norm / norm is above 1 below the limit; held at 1 it changes no bit.
    scale = (max_norm / norm).clamp(max=1)
    clipped = [(grad * scale).to(given.dtype) for grad, given in zip(wide, grads, strict=True)]
    return clipped, norm


@contract(check)
def fused(grads: list[Float[Tensor, "..."]], max_norm: float) -> tuple[list[Float[Tensor, "..."]], Float[Tensor, ""]]:
    if not grads:
        return [], torch.zeros(())
    grads = [grad.detach() for grad in grads]
    wide = functools.reduce(torch.promote_types, (grad.dtype for grad in grads), torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2, dtype=wide)))
    scale = (max_norm / norm).clamp(max=1)
    clipped = torch._foreach_mul(grads, scale)
    # A scalar gradient would take the dtype of the scale.
    return [grad.to(given.dtype) for grad, given in zip(clipped, grads, strict=True)], norm
