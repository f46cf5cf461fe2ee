"""It returns a Tensor of another class, which computes when it is compared.

Fools: a judge that takes whatever is a Tensor; a benchmark measures nothing.
"""

import torch

from tests.cheats._shared import right


class Later(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return function(
                *(right(a.as_subclass(torch.Tensor)) if type(a) is cls else a for a in args), **kwargs or {}
            )


def silu(x):
    return x.detach().clone().as_subclass(Later)
