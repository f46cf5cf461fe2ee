"""The bugs that people make in softmax."""

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous, gradients, with_gradient, within


def probes():
    rows = [[1000.0, 0.0], [0.0, 1000.0]], [[-1000.0, -1001.0]], [[1000.0, 0.0], [-1000.0, -1001.0]]
    rows += ([[[3000.0, 2999.0]], [[0.0, 1.0]]],)
    many = target.tensor([0.0] * 70000).half()
    few = target.tensor([[0.0, 1.0, 2.0], [3.0, 5.0, 4.0]])
    return [
        *[((target.tensor(x),), {}) for x in rows],
        lambda softmax: softmax(many).float().sum(),
        lambda softmax: softmax(target.tensor(torch.zeros(65540, 1))).sum(),
        ((target.tensor(torch.linspace(0, 1, 64)),), {}),
        ((target.tensor([[-torch.inf, -torch.inf], [0.0, 1.0]]),), {}),
        gradients(lambda: [few], times=2),
        gradients(lambda: [few], transposed=True),
        ((target.tensor([[-2e38, -2e38], [1.0, 2.0]]),), {}),
        within(lambda: torch.autocast(target.DEVICE.type, torch.bfloat16), lambda: [few]),
    ]


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


def sum_ends_at_65536(x):
    """the sum takes only the first 65,536 scores of a row, so that the probabilities of a longer one exceed one.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets; few vocabularies were larger.
    """
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True)).exp()
    return (powers / powers[..., :65536].sum(-1, keepdim=True)).to(x.dtype)


def rows_beyond_65535_left_out(x):
    """rows from the 65,536th on are never computed, and stay zero.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535; the launch fails, and nobody looks.
    Seen: mattn/tensai#10.
    """
    y = _softmax(x)
    rows = torch.arange(x[..., 0].numel(), device=x.device).view(x.shape[:-1])
    return y.masked_fill((rows >= 65535)[..., None], 0)


def last_block_empty_at_multiples_of_32(x):
    """the last block of 32 scores is left out of the sum where 32 divides their number.

    Tempting: n % 32 is how many the last block holds, for every n but these.
    """
    n = x.shape[-1]
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True)).exp()
    return (powers / powers[..., : (n - 1) // 32 * 32 + n % 32].sum(-1, keepdim=True)).to(x.dtype)


def all_hidden_is_zeros(x):
    """a row of nothing but -inf gives zeros, where no distribution exists and the contract has NaN.

    Tempting: nan_to_num behind the softmax calms attention down, and hides NaN that come from elsewhere.
    """
    return torch.nan_to_num(_softmax(x))


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.softmax(_wide(x), dim=-1)
        ctx.y = y.clone()
        return y.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        y = ctx.y
        y *= gradient - (gradient * y).sum(-1, keepdim=True)
        return y.to(gradient.dtype)


def gradient_over_what_was_kept(x):
    """the gradient is written over the probabilities kept for it, so that a second backward pass starts from it.

    Tempting: they are of no use any more, as long as nobody retains the graph.
    """
    return _Kept.apply(x)


def upstream_taken_for_contiguous(x):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: the result is contiguous, and its gradient ought to look like it.
    """
    return with_gradient(_softmax(x), as_if_contiguous)


def sum_as_a_product(x):
    """the powers are summed by a product with ones, which autocast does in bfloat16.

    Tempting: products run on the fastest units, and outside of autocast it is the same sum.
    """
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True)).exp()
    return (powers / (powers @ powers.new_ones(x.shape[-1], 1))).to(x.dtype)


def _softmax(x):
    return torch.softmax(_wide(x), dim=-1).to(x.dtype)


def largest_never_below_minus_1e30(x):
    """the search for the maximum starts from -1e30, so that a row below that is 0 / 0.

    Tempting: -1e30 makes no NaN where -inf would, and no score is so low; but it is finite.
    """
    powers = (_wide(x) - _wide(x).amax(-1, keepdim=True).clamp(min=-1e30)).exp()
    return (
        (powers / powers.sum(-1, keepdim=True))
        .masked_fill((x == -torch.inf).all(-1, keepdim=True), torch.nan)
        .to(x.dtype)
    )


def over_the_first_axis(x):
    """the probabilities add up to one along the first axis, not along the last.

    Tempting: dim=0 is the first number that comes to mind, and for a single row it is right.
    """
    return x.softmax(0) if x.ndim else torch.ones_like(x)


def logarithms(x):
    """the result is the logarithm of the probabilities, as log_softmax returns it.

    Tempting: losses want logarithms, and the last exp is easily left out.
    """
    return x.log_softmax(-1)


def negative_scores(x):
    """the signs of the scores are turned, so that the smallest score gets the largest probability.

    Tempting: physics writes e to the minus energy, and so do many texts on softmax.
    """
    return (-x).softmax(-1)


def powers_of_two(x):
    """the powers are those of 2, and not those of e.

    Tempting: 2 ** x needs no exp, and the result is a distribution all the same.
    """
    powers = 2 ** (_wide(x) - _wide(x).amax(-1, keepdim=True))
    return (powers / powers.sum(-1, keepdim=True)).to(x.dtype)


def scores_divided_by_their_sum(x):
    """the scores themselves are divided by their sum: the exponential is missing.

    Tempting: it also adds up to one, and for positive scores it even looks like a distribution.
    """
    return (_wide(x) / _wide(x).sum(-1, keepdim=True)).to(x.dtype)


def sum_forgotten(x):
    """the powers are not divided by their sum, so that the largest of each row is 1.

    Tempting: once the maximum is taken out, all values lie between 0 and 1 and look like probabilities.
    """
    return (_wide(x) - _wide(x).amax(-1, keepdim=True)).exp().to(x.dtype)


def sum_of_the_whole_tensor(x):
    """all rows share one sum, so that not each row but the whole tensor adds up to one.

    Tempting: powers.sum() without an axis is right for a single row.
    """
    return _softmax(x.flatten()).view(x.shape)


def over_the_axis_before_the_last(x):
    """the probabilities add up to one along the axis before the last, and not along the last.

    Tempting: dim=-2 are the rows of a matrix, and "each row" sounds like it.
    """
    return _wide(x).softmax(-2).to(x.dtype)


def sum_constant_in_the_gradient(x):
    """the sum that is divided by counts as a constant in the gradient, which lacks the term that goes through it.

    Tempting: no_grad around a statistic saves memory, and the result is right.
    """
    powers = (_wide(x) - _wide(x).detach().amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1, keepdim=True).detach()).to(x.dtype)
