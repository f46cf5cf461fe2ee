"""With a backward pass of its own, which has no second derivative and says so."""

import torch
from torch.autograd.function import once_differentiable

from tests.peers.formulas._shared import widened


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        wide = widened(x)
        return (wide * wide.sigmoid()).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(context, grad):
        (x,) = context.saved_tensors
        wide = widened(x)
        gate = wide.sigmoid()
        return (grad * gate * (1 + wide * (1 - gate))).to(x.dtype)


silu = _Silu.apply
