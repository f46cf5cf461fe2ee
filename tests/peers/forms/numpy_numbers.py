"""Where a number is meant, one of NumPy in float32, or a tensor that is wider than gradients in half precision."""

import numpy as np
import torch

from tests.peers.formulas import other_formulas
from tests.peers.formulas._shared import widened


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    return np.float32(other_formulas.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr))


def clip_grad_norm(grads, max_norm):
    if not grads:
        return [], 0.0
    grads = [grad.detach() for grad in grads]
    clipped, _ = other_formulas.clip_grad_norm(grads, max_norm)
    return clipped, torch.cat([widened(grad).reshape(-1) for grad in grads]).norm()
