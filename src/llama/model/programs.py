"""Programs that torch's compiler makes of a decoder layer's work on a token, or on a few (compiled_decoder.py).

    matrix = Matrix.of([gate, up], norm, torch.float32, half=True)
    run = program(body, form, [matrix], Kind((d_in,), torch.float32))          # of body(form, x, matrix)
    y = run(x, *matrix.held)

A program multiplies a matrix with one vector, or a few, by a plain loop over rows. That reads as fast as memory gives,
where a library's product is made for many vectors; and what comes between two products costs no calls of torch. Making
a program takes seconds and needs a C++ compiler; it is kept on disk for the next run.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from llama.model.products import below_each_other
from llama.model.quantized import WORD, Quantized

HALF = 16
"""Bits of a weight in bfloat16."""
NIBBLE = 4
"""Bits of the codes of which two fill a byte."""
FUSED = {"cpp.enable_floating_point_contract_flag": "fast"}
"""For torch's compiler: a product and the sum it is part of may be one instruction, rounded once."""
MANY = 512
"""What a program expects of a size that differs from call to call, when it decides how work is shared."""


class Matrix(NamedTuple):
    """A matrix as a program reads it: floats; or, with `bits` for each weight, words of 32 bits.

    Words of codes are held with their scales and the norm's weight: multiplied into the codes it would be rounded.
    """

    held: tuple[Tensor, ...]
    bits: int = 0

    @classmethod
    def of(
        cls, weights: Sequence[Tensor], norm: Float[Tensor, "d_in"] | None, wide: torch.dtype, half: bool
    ) -> "Matrix":
        """All these matrices, one below the other, for vectors that are still to be multiplied with norm's weight.

        They are held in bfloat16 if `half`. Codes that do not fill words are turned into the weights that they mean.
        """
        matrix = below_each_other(weights)
        if isinstance(matrix, Quantized):
            if _fills_words(matrix):
                held = _words(matrix), matrix.scales.to(wide)
                return cls(held if norm is None else (*held, norm.to(wide, copy=True)), matrix.bits)
            matrix = matrix.dequantized()
        if norm is not None:
            matrix = matrix * norm
        if half and matrix.shape[1] % 2 == 0:
            return cls((_pairs(matrix),), HALF)
        return cls((matrix.to(wide),))

    def of_rows(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """The matrix times each of a few vectors, which a program reads once for all of them."""
        return torch.stack([self @ row for row in x])

    def __matmul__(self, x: Float[Tensor, "d_in"]) -> Float[Tensor, "d_out"]:
        if not self.bits:
            return (self.held[0] * x).sum(-1)
        if self.bits == HALF:
            return _of_pairs(self.held[0], x)
        words, scales, *norm = self.held
        return _of_words(words, scales, kept(x * norm[0]) if norm else x, self.bits)


def kept(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same tensor, computed once and held in memory by a program: torch's compiler does so before as_strided.

    Without it, a vector would be computed anew for each row of the matrix that it is multiplied with.
    """
    return x.as_strided(x.shape, x.stride())


class Kind(NamedTuple):
    """What a program has to know of a tensor. A size of None differs from call to call.

    The tensor is contiguous; with such a size, it may be the beginning of a larger one along that dimension.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype


def program(body: Callable[..., Any], form: Any, matrices: Sequence[Matrix], *inputs: Kind) -> Callable[..., Any]:
    """body(form, *inputs, *matrices) for tensors like these, called with the inputs and with what the matrices hold.

    That the tensors of a call are of these kinds is not checked. The body returns a tuple of contiguous tensors, and
    may write into its inputs. `form` is whatever else it has to know, and can be hashed.
    """
    held = tuple((m.bits, tuple(Kind(tuple(t.shape), t.dtype) for t in m.held)) for m in matrices)
    return _compiled(body, form, inputs, held)


@functools.cache
def _compiled(
    body: Callable[..., Any], form: Any, inputs: tuple[Kind, ...], matrices: tuple[tuple[int, tuple[Kind, ...]], ...]
) -> Callable[..., Any]:
    """torch.compile makes the same one, but inspects its arguments in each call, which takes as long as a product."""
    # They take a second or two, for those who compile.
    from torch._dynamo.source import ConstantSource
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    def flat(*tensors: Tensor) -> Any:
        given, rest = tensors[: len(inputs)], iter(tensors[len(inputs) :])
        return body(form, *given, *(Matrix(tuple(next(rest) for _ in kinds), bits) for bits, kinds in matrices))

    mode = FakeTensorMode(shape_env=ShapeEnv())

    def example(number: int, kind: Kind) -> Tensor:
        """Part of a larger tensor, so that the size that varies is not taken for what its strides come from."""
        vary = [size is None for size in kind.shape]
        memory = torch.empty([2 * MANY if size is None else size for size in kind.shape], dtype=kind.dtype)
        part = memory[tuple(slice(MANY) if v else slice(None) for v in vary)]
        of: Any = StatelessSymbolicContext(
            dynamic_sizes=[DimDynamic.DYNAMIC if v else DimDynamic.STATIC for v in vary],
            dynamic_strides=[
                DimDynamic.DYNAMIC if any(vary[i + 1 :]) else DimDynamic.INFER_STRIDE for i in range(len(vary))
            ],
        )
        return mode.from_tensor(part, source=ConstantSource(f"input{number}"), symbolic_context=of)

    every = [*inputs, *(kind for _, kinds in matrices for kind in kinds)]
    examples = [example(number, kind) for number, kind in enumerate(every)]
    context = tracing(TracingContext(mode))  # without which nothing is kept on disk
    with torch.no_grad(), mode, context, config.patch(FUSED):
        graph = make_fx(flat, decomposition_table=select_decomp_table())(*examples)
        made: Any = compile_fx_inner(graph, examples)
    return lambda *tensors: made([*tensors])


def _packed(parts: Integer[Tensor, "*rows parts n"], bits: int) -> Float[Tensor, "*rows n"]:
    """Words of 32 bits: part j in the bits of place j, counted from the lowest.

    They have to look like float32, since torch's compiler reads only those many at a time.
    """
    if bits == NIBBLE:
        low, high = parts.unflatten(-2, (-1, 2)).unbind(-2)
        parts = (low & (2**NIBBLE - 1)) | (high << NIBBLE)
    # The processors of today keep the lowest byte of a word first.
    return torch.stack(parts.unbind(-2), -1).view(torch.float32).squeeze(-1)


def _pairs(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out words"]:
    """Two weights of bfloat16 in each word, in the high bits those of the second half of a row."""
    return _packed(weight.bfloat16().view(torch.int16).unflatten(1, (2, -1)), HALF)


def _of_pairs(words: Tensor, x: Tensor) -> Tensor:
    """With zeros in the other half of its word, a weight is a float32: nothing has to be converted."""
    by_word, (first, second) = words.view(torch.int32), x.chunk(2)
    low, high = (by_word << HALF).view(torch.float32), (by_word & -(2**HALF)).view(torch.float32)
    return (low.to(x.dtype) * first + high.to(x.dtype) * second).sum(-1)


def _fills_words(weight: Quantized) -> bool:
    """Whether each group of these codes fills a number of words."""
    d_in, n_groups = weight.codes.shape[1], weight.scales.shape[1]
    return d_in // n_groups % (WORD // weight.bits) == 0


def _words(weight: Quantized) -> Float[Tensor, "d_out words"]:
    """The codes of a group side by side, in as many words as they fill, each the integer Σ code_j · 2^(bits · j)."""
    n_groups, parts, half = weight.scales.shape[1], WORD // weight.bits, 2 ** (weight.bits - 1)
    # Parts are packed as they are, without a sign: so half is added to each code, and taken from the sum.
    codes = weight.codes.view(torch.uint8).unflatten(1, (n_groups, parts, -1)) + half
    halves = sum(half << (weight.bits * j) for j in range(parts))
    return (_packed(codes, weight.bits).view(torch.int32) - (halves - 2**WORD)).view(torch.float32).flatten(1)


def _of_words(words: Tensor, scales: Tensor, x: Tensor, bits: int) -> Tensor:
    """Shifted to the top of its word, a code has those below it as a fraction: t_j = code_j + t_(j-1) / 2^bits.

    So Σ code_j x_j is Σ t_j (x_j - x_(j+1) / 2^bits). To take the fraction out of x costs nothing, to take it out of
    each code would cost as much as the product. That t_j is an integer 2^(WORD - bits) times as large is made good in
    the sums, once for a row.
    """
    parts, (d_out, n_groups) = WORD // bits, scales.shape
    by_group = words.view(torch.int32).view(d_out, n_groups, -1)
    of_group = x.view(n_groups, parts, -1)
    above = F.pad(of_group[:, 1:], (0, 0, 0, 1))
    inputs = kept((of_group - above / 2**bits).view(-1)).view_as(of_group)
    total = by_group.new_zeros((), dtype=x.dtype)
    for j in range(parts):
        total = total + (by_group << (WORD - bits * (j + 1))).to(x.dtype) * inputs[:, j]
    return (total * scales[..., None]).sum((-1, -2)) * 2.0 ** (bits - WORD)
