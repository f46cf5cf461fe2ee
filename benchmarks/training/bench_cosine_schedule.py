"""The learning rate of one step: a few operations on numbers, whatever the length of the schedule."""

import torch
from torch import nn

from benchmarks.cases import layer


def arguments(case):
    return (case.n // 2, 3e-3, case.n // 10, case.n, 1e-4), {}


def transformers(step, peak_lr, warmup_steps, total_steps, min_lr):
    import transformers

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=peak_lr)
    make = transformers.get_cosine_with_min_lr_schedule_with_warmup
    factor = make(optimizer, warmup_steps, total_steps, min_lr=min_lr).lr_lambdas[0]
    return lambda: peak_lr * factor(step)


bench_cosine_schedule = layer(
    "cosine_schedule",
    along="n",
    sizes=(10, 100, 1000, 10000),
    others={},
    naive=10000,
    arguments=arguments,
    peers={"transformers": transformers},
    dtypes=(torch.float64,),
)
