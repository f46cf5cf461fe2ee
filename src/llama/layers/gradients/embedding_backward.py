"""The gradient of embedding: each token adds its gradient to the row that it was looked up in.

    grad_weight[id] = sum of grad over the tokens with that id

    grad [... d_model], token_ids [...] int64, vocab -> grad_weight [vocab d_model]

A row that occurs twice gets both gradients, one that does not occur has zeros. The result has the dtype of grad; rows
are added up in at least float32: in bfloat16, 5,000 ones would make 256.

Raises IndexError for an id outside 0..vocab-1 and ValueError for a negative vocab.
Source: the product with a one-hot matrix, whose gradient is linear_backward's: one-hot(token_ids)ᵀ · grad.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from llama.contract import check_ids, contract
from llama.layers.model import wide

GRADIENTS = ("grad",)  # weight is not passed


def check(grad: Tensor | ndarray, token_ids: Tensor | ndarray, vocab: int) -> None:
    if vocab < 0:
        raise ValueError(f"embedding_backward: vocab must not be negative, got {vocab}")
    check_ids("embedding_backward: token_ids", token_ids, vocab)


@contract(check)
def naive(
    grad: Float[ndarray, "... d_model"], token_ids: Int64[ndarray, "..."], vocab: int
) -> Float[ndarray, "vocab d_model"]:
    grad_weight = np.zeros((vocab, grad.shape[-1]))
    for token in np.ndindex(token_ids.shape):
        for i in range(grad.shape[-1]):
            grad_weight[token_ids[token], i] += grad[*token, i]
    return grad_weight


@contract(check)
@torch.no_grad()
def vectorized(
    grad: Float[Tensor, "... d_model"], token_ids: Int64[Tensor, "..."], vocab: int
) -> Float[Tensor, "vocab d_model"]:
    grad_weight = torch.zeros(vocab, grad.shape[-1], dtype=wide(grad), device=grad.device)
    # Adds up in the same order each time, which index_add_ does not on a GPU.
    grad_weight.index_put_((token_ids,), grad.to(grad_weight.dtype), accumulate=True)
    return grad_weight.to(grad.dtype)


@contract(check)
@torch.no_grad()
def fused(
    grad: Float[Tensor, "... d_model"], token_ids: Int64[Tensor, "..."], vocab: int
) -> Float[Tensor, "vocab d_model"]:
    rows = torch.ops.aten.embedding_dense_backward(grad.to(wide(grad)), token_ids, vocab, -1, False)
    return rows.to(grad.dtype)
