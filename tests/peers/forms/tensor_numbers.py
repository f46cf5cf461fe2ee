"""Where a number is meant, a tensor without axes, in float64 whatever the arguments are."""

import torch

from tests.peers.formulas import other_formulas


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    rate = other_formulas.cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr)
    return torch.tensor(rate, dtype=torch.float64)


def clip_grad_norm(grads, max_norm):
    if not grads:
        return (), torch.zeros((), dtype=torch.float64)
    grads = [grad.detach() for grad in grads]
    clipped, _ = other_formulas.clip_grad_norm(grads, max_norm)
    return tuple(clipped), torch.cat([grad.reshape(-1).double() for grad in grads]).norm()
