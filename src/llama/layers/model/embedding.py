"""Embedding: look up one row of a table for each token.

    y = weight[token_id]          (the same as one-hot(token_id) · weight)

    token_ids [...] int64, weight [vocab d_model] -> [... d_model]

The result has the dtype of the weight. A token that occurs twice sends its gradient to its row twice; these
are added up in at least float32.

Raises IndexError for an id outside 0..vocab-1: Python would read -1 as the last row.
Source: Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2 (the matrix C).
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from llama.contract import check_ids, contract


def check(token_ids: Tensor | ndarray, weight: Tensor | ndarray) -> None:
    check_ids("embedding: token_ids", token_ids, weight.shape[0])


@contract(check)
def naive(token_ids: Int64[ndarray, "..."], weight: Float[ndarray, "vocab d_model"]) -> Float[ndarray, "... d_model"]:
    y = np.empty((*token_ids.shape, weight.shape[1]))
    for token in np.ndindex(token_ids.shape):
        for i in range(weight.shape[1]):
            y[*token, i] = weight[token_ids[token], i]
    return y


@contract(check)
def vectorized(token_ids: Int64[Tensor, "..."], weight: Float[Tensor, "vocab d_model"]) -> Float[Tensor, "... d_model"]:
    # The rows of a repeated id add up in the gradient: in half precision, 5,000 ones would make 256.
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    rows = wide[token_ids.flatten()]  # an id without an axis would give a view of the table
    return rows.view(*token_ids.shape, weight.shape[1]).to(weight.dtype)


@contract()
def fused(token_ids: Int64[Tensor, "..."], weight: Float[Tensor, "vocab d_model"]) -> Float[Tensor, "... d_model"]:
    if not token_ids.is_cpu:
        check(token_ids, weight)  # a wrong id would be an assertion of the device, after which nothing works any more
    try:
        if weight.requires_grad and weight.element_size() == 2 and torch.is_grad_enabled():
            return _HalfWithGradient.apply(token_ids, weight)
        return F.embedding(token_ids, weight)  # on a CPU it looks at every id itself
    except (IndexError, RuntimeError):  # the latter from an empty table
        check(token_ids, weight)
        raise


class _HalfWithGradient(torch.autograd.Function):
    """The same in half precision, with the rows of a repeated id added up in float32, which torch does not do."""

    @staticmethod
    def forward(ctx: Any, token_ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(token_ids)
        ctx.vocab = len(weight)
        return F.embedding(token_ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (token_ids,) = ctx.saved_tensors
        rows = torch.ops.aten.embedding_dense_backward(grad.float(), token_ids, ctx.vocab, -1, False)
        return None, rows.to(grad.dtype)
