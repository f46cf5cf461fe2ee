"""AdamW: four tensors are read, three are written.

torch.optim works in place, as an optimizer in a program does; our contract asks for new tensors, which are three
writes more.
"""

import torch
from torch import nn

from benchmarks.cases import layer


def torch_optim(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay):
    parameter = nn.Parameter(param.clone())
    parameter.grad = grad
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
    optimizer.step()  # the first one makes the averages, which ours is given
    return optimizer.step


bench_adamw = layer(
    "adamw",
    along="n",
    sizes=(64, 4096, 131072, 2097152),
    others={"batch": 1},
    moved=lambda c: 7 * c.n,
    naive=4096,
    peers={"torch.optim": torch_optim},
)
