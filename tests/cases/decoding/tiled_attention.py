"""How tiled_attention is called, and what it may allocate."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llama.implementation import tensors
from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case
from tests.cases.model import attention

TILES = (64, 128, 1, 2, 3)


def arguments(case: Case) -> Arguments:
    args, kwargs = attention.arguments(case)
    return args, kwargs | {"tile": TILES[case.seed % len(TILES)]}


class Largest(TorchDispatchMode):
    """Within it, how many elements the largest tensor has that is made. A view shares memory, and is not made.

    Bytes do not count: a layer in a process of its own is sent its arguments as such, and what it makes is not seen.
    """

    elements = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler to keep it away from here, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_memory(t) for t in tensors((args, kwargs or {}))}
        for made in tensors([result]):
            if made.dtype != torch.uint8 and _memory(made) not in given:
                self.elements = max(self.elements, made.untyped_storage().nbytes() // made.element_size())
        return result


def _memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def limit(q: Tensor, k: Tensor, tile: int) -> int:
    """So many elements may a tensor have that is made for these arguments."""
    batch, n_heads, q_len, head_dim = q.shape
    return batch * n_heads * max(q_len * tile, (q_len + k.shape[2]) * head_dim)


CALLS = Calls(
    attention.CALLS.sizes,
    arguments,
    batched=attention.CALLS.batched,
    batched_results=(0, 1),
    multiplies=True,
    very_large=attention.CALLS.very_large,
    results=("y", "lse"),
)
