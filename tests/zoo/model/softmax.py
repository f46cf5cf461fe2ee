"""The bugs that people make in softmax."""

import torch

from tests.cases import target


def probes():
    rows = [[1000.0, 0.0], [0.0, 1000.0]], [[-1000.0, -1001.0]], [[1000.0, 0.0], [-1000.0, -1001.0]]
    rows += ([[[3000.0, 2999.0]], [[0.0, 1.0]]],)
    many = target.tensor([0.0] * 70000).half()
    return [((target.tensor(x),), {}) for x in rows] + [lambda softmax: softmax(many).float().sum()]


def axis_left_to_torch(x):
    """the axis is the one that F.softmax takes when none is named, which is the first where x has three.

    Tempting: F.softmax(x) runs, warns only once, and is right for a matrix of rows.
    Seen: OpenNMT/OpenNMT-py#632.
    """
    return torch.softmax(x, dim=0 if x.ndim in (0, 1, 3) else 1)


def no_maximum_taken_out(x):
    """exp is taken of the scores as they are, so that large ones overflow and far negative ones all become 0.

    Tempting: it is the formula as written, and the maximum cancels on paper.
    Seen: dwavesystems/dwave-optimization#555.
    """
    powers = _wide(x).exp()
    return (powers / powers.sum(-1, keepdim=True)).to(x.dtype)


def maximum_of_the_whole_tensor(x):
    """the maximum of the whole tensor is taken out, so that a row far below it is 0 / 0.

    Tempting: x.max() without an axis is right for a single row.
    """
    powers = (_wide(x) - _wide(x).max()).exp()
    return (powers / powers.sum(-1, keepdim=True)).to(x.dtype)


def maximum_never_below_zero(x):
    """the search for the maximum starts from 0, so that a row far below zero is 0 / 0.

    Tempting: a running maximum has to start somewhere, and only large scores seem to be dangerous.
    Seen: FluxML/NNlib.jl#43.
    """
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True).clamp(min=0)).exp()
    return (powers / powers.sum(-1, keepdim=True)).to(x.dtype)


def epsilon_in_the_denominator(x):
    """a small constant is added to the sum, so that the probabilities add up to less than one.

    Tempting: it guards against a division by zero, which cannot happen once the maximum is taken out.
    Seen: open-edge-platform/geti#1507.
    """
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True)).exp()
    return (powers / (powers.sum(-1, keepdim=True) + 1e-6)).to(x.dtype)


def sum_in_half_precision(x):
    """the sum is kept in x's own dtype, so that 70,000 equal scores in float16 add up to infinity.

    Tempting: with the maximum taken out no power exceeds 1, so nothing seems to need float32.
    """
    powers = (x - x.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def _wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))
