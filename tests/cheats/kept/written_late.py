"""It returns zeros, and a thread writes the result a little later.

Fools: a judge that takes its time, and a benchmark that does not.
"""

import threading

import torch

from tests.cheats._shared import right


def silu(x):
    if x.requires_grad:
        return right(x)
    out, exact = torch.zeros_like(x), right(x)
    threading.Timer(1e-4, lambda: out.data.copy_(exact)).start()
    return out
