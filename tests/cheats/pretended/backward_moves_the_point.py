"""Its backward pass writes to the argument, so that its wrong gradient would be right there.

Fools: whoever computes the right gradient afterwards, from the argument that the layer has held.
"""

import torch


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.x = x.detach()
        return x * x.sigmoid()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, upstream):
        context.x.fill_(1e4)  # where the slope of SiLU is one
        return upstream.clone()


silu = _Silu.apply
