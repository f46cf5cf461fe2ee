"""Gradient clipping: every gradient is read for the norm, then read and written. torch.nn does it in place."""

from torch import nn

from benchmarks.cases import layer

COUNT = 8


def arguments(case):
    return ([case.normal("n") for _ in range(COUNT)], 1.0), {}


def torch_nn(grads, max_norm):
    parameters = [nn.Parameter(grad.clone()) for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    return lambda: nn.utils.clip_grad_norm_(parameters, max_norm)


bench_clip_grad_norm = layer(
    "clip_grad_norm",
    along="n",
    sizes=(64, 1024, 32768, 524288),
    others={},
    moved=lambda c: 3 * COUNT * c.n,
    naive=1024,
    arguments=arguments,
    peers={"torch.nn": torch_nn},
)
