"""A matrix times one vector, or a few, which is what a token costs: how it is held decides how fast it is read.

    Product           float32 or float64, by torch's own product of a matrix and a vector
    HalfProduct       bfloat16, likewise
    CompiledProduct   any of these, and codes of 8 or 4 bits, by a program that torch.compile's backend makes for its
    shape
    RowsProduct       some vectors at a time, in the dtype of the first two

Such a program is a plain loop over rows. It reads as fast as memory gives, where a library's product of matrices is
made for more than one vector. Making it takes seconds and needs a C++ compiler; it is kept on disk for the next run.
"""

import functools
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from llama.model.quantized import WORD, Quantized, codes_of

LARGE = 150_000
"""Elements from which on it pays to wake the second core for a product."""

SMALL = 500_000
"""Elements up to which a matrix is held in float32 in any case: to begin a product in bfloat16 takes torch 25 µs."""

ROWS = 16
"""For how many rows oneDNN is asked to lay out a matrix; any number can be multiplied with it."""

FEW_ROWS = 4
"""Rows up to which it takes longer to make float32 of a matrix than to multiply in imitated bfloat16."""

MEASURED = 9
"""So many times each way to multiply a matrix is measured, in turn, where it is not known which one is faster."""


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


class CompiledProduct:
    """The same, by a program for this shape. Codes have a norm's weight apart: multiplied into them it would be
    rounded."""

    def __init__(
        self,
        weight: Float[Tensor, "d_out d_in"] | Quantized,
        wide: torch.dtype,
        norm: Float[Tensor, "d_in"] | None = None,
    ):
        self.norm = norm
        self.held: tuple[Tensor, ...]
        if isinstance(weight, Quantized):
            self.held = _words(weight), weight.scales
            bits, d_in, self.scale = weight.bits, weight.codes.shape[1], 2.0 ** (weight.bits - WORD)
        else:
            self.held = (weight.contiguous(),)
            bits, d_in, self.scale = 0, weight.shape[1], 1.0
        self.scaled = torch.zeros(d_in, dtype=wide)
        self.program = _compiled(bits, *((tuple(t.shape), t.dtype) for t in (*self.held, self.scaled)))

    def __call__(
        self, x: Float[Tensor, "d_in"], factor: float, out: Float[Tensor, "d_out"], plus: bool = False
    ) -> None:
        if factor * self.scale != 1.0 or self.norm is not None:
            x = torch.mul(x, factor * self.scale, out=self.scaled)
            if self.norm is not None:
                x.mul_(self.norm)
        y = self.program(*self.held, x)
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


AnyProduct = Product | HalfProduct | CompiledProduct


def product_of(
    weights: Sequence[Tensor],
    norm: Float[Tensor, "d_in"] | None,
    wide: torch.dtype,
    half: bool = False,
    compile: bool = False,
) -> AnyProduct:
    """The product of all these matrices, one below the other, with what RMSNorm's weight makes of a vector.

    A large matrix is held in bfloat16 if `half`, and multiplied by a program if `compile` and where that is faster.
    Without one, and where they are few, codes are turned into the weights that they mean.
    """
    matrix: Tensor | Quantized = _below_each_other(weights)
    if isinstance(matrix, Quantized):
        if compile and matrix.codes.numel() > SMALL and _fills_words(matrix):
            return CompiledProduct(matrix, wide, norm)
        matrix = matrix.dequantized()
    if norm is not None:
        matrix = matrix * norm
    if matrix.numel() <= SMALL:
        return Product(matrix.to(wide))
    matrix = matrix.to(torch.bfloat16 if half else wide)
    if compile and _program_is_faster(*matrix.shape, matrix.dtype):
        return CompiledProduct(matrix, wide)
    return HalfProduct(matrix) if half else Product(matrix)


@functools.cache
def _program_is_faster(d_out: int, d_in: int, dtype: torch.dtype) -> bool:
    """Whether a program multiplies such a matrix faster than torch does, which depends on the processor: as
    measured."""
    wide = torch.promote_types(dtype, torch.float32)
    weight, x, out = (torch.ones(shape, dtype=wide) for shape in ((d_out, d_in), (d_in,), (d_out,)))
    weight = weight.to(dtype)
    plain = HalfProduct(weight) if dtype == torch.bfloat16 else Product(weight)
    times: dict[AnyProduct, list[float]] = {plain: [], CompiledProduct(weight, wide): []}
    for _ in range(MEASURED):
        for product, taken in times.items():
            started = time.perf_counter()
            product(x, 1.0, out)
            taken.append(time.perf_counter() - started)
    of_plain, of_program = (sorted(taken)[MEASURED // 2] for taken in times.values())
    return of_program < of_plain


def _below_each_other(weights: Sequence[Tensor]) -> Tensor | Quantized:
    if not (of := [codes for weight in weights if (codes := codes_of(weight))]):
        return torch.cat(list(weights))
    return Quantized(torch.cat([w.codes for w in of]), torch.cat([w.scales for w in of]), of[0].bits)


def _fills_words(weight: Quantized) -> bool:
    """Whether each group of these codes fills a number of words."""
    d_in, n_groups = weight.codes.shape[1], weight.scales.shape[1]
    return d_in // n_groups % (WORD // weight.bits) == 0


def _of_floats(weight: Tensor, x: Tensor) -> Tensor:
    return (weight.to(x.dtype) * x).sum(-1)


def _of_words(words: Tensor, scales: Tensor, x: Tensor, bits: int) -> Tensor:
    """Shifted into the highest bits of a word, and with zeros below it, a code is an integer 2^(32 - bits) times as
    large.

    That is made good in x, once for all rows: it costs less than to shift each code down again.
    """
    parts, (d_out, n_groups) = WORD // bits, scales.shape
    by_group = words.view(torch.int32).view(d_out, n_groups, -1)
    inputs = x.view(n_groups, parts, -1)
    total = by_group.new_zeros((), dtype=x.dtype)
    for j in range(parts):
        code = by_group << (WORD - bits * (j + 1))
        if j > 0:
            code = code & -(2 ** (WORD - bits))
        total = total + code.to(x.dtype) * inputs[:, j]
    return (total * scales[..., None]).sum((-1, -2))


def _words(weight: Quantized) -> Float[Tensor, "d_out words"]:
    """The codes of a group side by side in words of 32 bits: part j of it in the bits of place j.

    They have to look like float32, since torch's compiler reads only those many at a time.
    """
    d_out, n_groups = weight.scales.shape
    parts = weight.codes.to(torch.int32).view(d_out, n_groups, WORD // weight.bits, -1) & (2**weight.bits - 1)
    words = parts[:, :, 0].clone()
    for j in range(1, parts.shape[2]):
        words |= parts[:, :, j] << (weight.bits * j)
    return words.flatten(1).view(torch.float32)


@functools.cache
def _compiled(bits: int, *kinds: tuple[tuple[int, ...], torch.dtype]) -> Callable[..., Tensor]:
    """A program for codes of so many bits, or for floats where these are 0, and arguments of these shapes and dtypes.

    torch.compile makes the same one, but inspects its arguments in each call, which takes as long as a small product.
    """
    from torch import _inductor  # a second, for those who compile

    body = functools.partial(_of_words, bits=bits) if bits else _of_floats
    examples = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
    with torch.no_grad():
        program: Callable[..., Tensor] = _inductor.compile(make_fx(body)(*examples), [*examples])
    return program
