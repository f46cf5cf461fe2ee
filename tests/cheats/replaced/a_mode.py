"""It leaves a mode behind that sees and changes every later call of torch.

Fools: a judge that computes with torch.
"""

import torch
from torch.overrides import TorchFunctionMode

from tests.cheats._shared import wrong


class _Answers(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return True if function is torch.equal else function(*args, **kwargs or {})


_ANSWERS = _Answers()


def silu(x):
    _ANSWERS.__enter__()
    return wrong(x)
