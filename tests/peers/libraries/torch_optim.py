"""The optimizer and the schedules of torch.optim, and the clipping beside them."""

import torch
from torch import nn

from tests.peers.formulas._shared import widened


def adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """It works in place, so it gets copies; its own count of steps is the number of those done.

    The copies are in float32 at least, as is usual: in float16 its eps is zero.
    """
    parameter, gradient, average, average_square = (
        widened(t).detach().clone() for t in (param, grad, exp_avg, exp_avg_sq)
    )
    parameter = nn.Parameter(parameter)
    parameter.grad = gradient
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    done = torch.tensor(step - 1.0)
    optimizer.state[parameter] = {"step": done, "exp_avg": average, "exp_avg_sq": average_square}
    optimizer.step()
    return tuple(t.detach().to(param.dtype) for t in (parameter, average, average_square))


def clip_grad_norm(grads, max_norm):
    """torch divides by norm + 1e-6 on purpose; so the norm it gets is less by that. It returns the norm in half
    precision where the gradients are; so they are widened for it, and detached, as those of parameters are."""
    grads = [grad.detach() for grad in grads]
    parameters = [nn.Parameter(torch.empty_like(grad)) for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    norm = nn.utils.get_total_norm([widened(grad) for grad in grads])
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm - 1e-6)
    return [parameter.grad for parameter in parameters], norm


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    """LinearLR, then CosineAnnealingLR, which would rise again after total_steps on purpose, so the step is held."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=peak_lr)
    if step < warmup_steps:
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup_steps, total_iters=max(1, warmup_steps - 1))
        schedule.last_epoch = step
    else:
        # Where all is warm-up the cosine has no length; any will do, at its end.
        length = max(1, total_steps - warmup_steps)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length, eta_min=min_lr)
        schedule.last_epoch = length if step >= total_steps else step - warmup_steps
    return schedule._get_closed_form_lr()[0]
