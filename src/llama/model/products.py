"""A matrix times one vector, or a few, which is what a token costs: how it is held decides how fast it is read.

Product           float32 or float64, by torch's own product of a matrix and a vector
HalfProduct       bfloat16, likewise
RowsProduct       some vectors at a time, in either dtype
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llama.model.quantized import Quantized, codes_of

LARGE = 150_000
"""Elements from which on it pays to wake the second core for a product."""

SMALL = 500_000
"""Elements up to which a matrix is held in float32 in any case: to begin a product in bfloat16 takes torch 25 µs."""

ROWS = 16
"""For how many rows oneDNN is asked to lay out a matrix; any number can be multiplied with it."""

FEW_ROWS = 4
"""Rows up to which it takes longer to make float32 of a matrix than to multiply in imitated bfloat16."""


class Product:
    """out = factor · weight · x, or that on top of `out`; the weight is held as it is, column by column.

    Large matrices are multiplied as the two halves of a sum, since on some processors torch multiplies a matrix with a
    single vector on one core.
    """

    def __init__(self, weight: Float[Tensor, "d_out d_in"]):
        columns = weight.T.contiguous()
        d_in, d_out = columns.shape
        self.weight = columns.T
        self.halves = columns.unflatten(0, (2, -1)) if columns.numel() >= LARGE and d_in % 2 == 0 else None
        if self.halves is not None:
            self.sums = columns.new_empty(2, 1, d_out)
            self.first, self.second = self.sums[:, 0]

    def __call__(
        self, x: Float[Tensor, "d_in"], factor: float, out: Float[Tensor, "d_out"], plus: bool = False
    ) -> None:
        if self.halves is None:
            out.addmv_(self.weight, x, beta=int(plus), alpha=factor)
            return
        self.sums.baddbmm_(x.view(2, 1, -1), self.halves, beta=0, alpha=factor)
        if plus:
            out.add_(self.first).add_(self.second)
        else:
            torch.add(self.first, self.second, out=out)


class HalfProduct:
    """The same, with a weight in bfloat16."""

    def __init__(self, weight: Float[Tensor, "d_out d_in"]):
        self.weight = weight.bfloat16()

    def __call__(
        self, x: Float[Tensor, "d_in"], factor: float, out: Float[Tensor, "d_out"], plus: bool = False
    ) -> None:
        y = torch.mv(self.weight, (x * factor).bfloat16())
        if plus:
            out.add_(y)
        else:
            out.copy_(y)


class RowsProduct:
    """rows · weightᵀ of all these matrices, one below the other, for any number of rows and fast for few.

    A large matrix is held in bfloat16 if `half`, and lies in the blocks that oneDNN asks for. Where it has none for
    bfloat16, as on a processor that imitates it, the matrix becomes float32 for each product of some rows.
    """

    def __init__(self, weights: Sequence[Tensor], wide: torch.dtype, half: bool = False):
        matrix = torch.cat(list(weights))
        large = matrix.numel() > SMALL
        self.wide, self.weight = wide, matrix.to(torch.bfloat16 if half and large else wide)
        self.in_blocks = matrix.numel() > LARGE and _has_blocks(self.weight.dtype)
        if self.in_blocks:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)

    def __call__(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        if self.weight.dtype != self.wide:
            if not self.in_blocks and len(x) > FEW_ROWS:
                return F.linear(x, self.weight.to(self.wide))
            x = x.to(self.weight.dtype)
        if self.in_blocks:
            y = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        else:
            y = F.linear(x, self.weight)
        return y if y.dtype == self.wide else y.to(self.wide)


def _has_blocks(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here, and has blocks for matrices of that dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    imitated = dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype in (torch.float32, torch.bfloat16) and not imitated


AnyProduct = Product | HalfProduct


def product_of(
    weights: Sequence[Tensor], norm: Float[Tensor, "d_in"] | None, wide: torch.dtype, half: bool = False
) -> AnyProduct:
    """The product of all these matrices, one below the other, with what RMSNorm's weight makes of a vector.

    A large matrix is held in bfloat16 if `half`. Codes are turned into the weights that they mean.
    """
    matrix = below_each_other(weights)
    if isinstance(matrix, Quantized):
        matrix = matrix.dequantized()
    if norm is not None:
        matrix = matrix * norm
    return HalfProduct(matrix) if half and matrix.numel() > SMALL else Product(matrix.to(wide))


def below_each_other(weights: Sequence[Tensor]) -> Tensor | Quantized:
    """These matrices as one; all of them are held in the same way."""
    if not (of := [codes for weight in weights if (codes := codes_of(weight))]):
        return torch.cat(list(weights))
    return Quantized(torch.cat([w.codes for w in of]), torch.cat([w.scales for w in of]), of[0].bits)
