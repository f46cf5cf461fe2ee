"""The bugs that people make in softmax_backward."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    grad, y = target.tensor([[1.0, 0.0, 2.0], [4.0, 3.0, -1.0]]), target.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])

    def square():
        """New each time: a bug that writes over what it is given is asked too."""
        return target.tensor([[1.0, 2.0], [-1.0, 4.0]]), target.tensor([[0.25, 0.75], [0.5, 0.5]])

    def shares(n, dtype=torch.float32):
        return (target.tensor(torch.linspace(-n, n, n), dtype), target.tensor(torch.full((n,), 1 / n), dtype)), {}

    def many_rows(f):
        rows = target.tensor([[1.0, 0.0]]).repeat(65540, 1)
        return f(rows, torch.full_like(rows, 0.5))[-2:]

    return [
        ((grad[None], y[None]), {}),
        ((torch.stack((grad, 2 * grad)), torch.stack((y, y.flip(1)))), {}),
        ((target.tensor([1.0, 1e6, 3.0]), target.tensor([0.5, 0.0, 0.5])), {}),
        ((target.tensor([8192.0] * 8192).bfloat16(), target.tensor([1 / 8192] * 8192).bfloat16()), {}),
        ((target.tensor([60000.0, -60000.0]).half(), target.tensor([1 / 64, 63 / 64]).half()), {}),
        shares(256),
        shares(70000),
        many_rows,
        ((grad, y.bfloat16()), {}),
        ((grad.bfloat16(), y), {}),
        lambda f: f(square()[0], square()[1].mT),
        lambda f: f(square()[0].mT, square()[1]),
        again(lambda: [grad.clone(), y.clone()], lambda grad, y: [grad.flip(0), y]),
    ]


def _wide(t):
    return t.detach().to(torch.promote_types(t.dtype, torch.float32))


def _mean(grad, y):
    """Of grad, weighted by the probabilities."""
    return (grad * y).sum(-1, keepdim=True)


def _gradient(grad, y, mean=None):
    """Right, where the mean is."""
    wide, probability = _wide(grad), _wide(y)
    return (probability * (wide - (_mean(wide, probability) if mean is None else mean))).to(grad.dtype)


def sum_held_constant(grad, y):
    """the sum of powers is taken for a constant, so that the gradient is y · grad and lacks the term through the sum.

    Tempting: y is e to the x over a number, and the derivative of that is y itself.
    """
    return _gradient(grad, y, mean=0.0)


def diagonal_alone(grad, y):
    """the gradient is grad · y · (1 - y): each result is taken to depend on its own score alone.

    Tempting: it is the derivative of the sigmoid, and the diagonal of the right matrix.
    Seen: deeplearning4j/libnd4j#440.
    """
    return (_wide(grad) * _wide(y) * (1 - _wide(y))).to(grad.dtype)


def grad_passed_on(grad, y):
    """grad itself comes back, as if softmax were no function at all.

    Tempting: with cross-entropy behind it the gradient of both is y less one-hot, and softmax seems to have no part.
    Seen: pjreddie/darknet#96.
    """
    return grad.clone()


def softmax_of_the_probabilities(grad, y):
    """y is taken for the scores, and goes through softmax once more.

    Tempting: nearly every other gradient is given the argument of its layer, and not the result.
    """
    return _gradient(grad, _wide(y).softmax(-1))


def mean_without_weights(grad, y):
    """the mean that is subtracted is the plain one of grad, not weighted by the probabilities.

    Tempting: it is what centring means elsewhere, and where all probabilities are equal it is right.
    """
    return _gradient(grad, y, mean=_wide(grad).mean(-1, keepdim=True))


def sum_without_weights(grad, y):
    """the sum of grad is subtracted, not weighted by the probabilities.

    Tempting: in the gradient of log-softmax there is such a sum.
    """
    return _gradient(grad, y, mean=_wide(grad).sum(-1, keepdim=True))


def gradient_of_log_softmax(grad, y):
    """it is the gradient of log-softmax: grad less y times the sum of grad.

    Tempting: the two are written in one file, and both are given what their layer returned.
    """
    return (_wide(grad) - _wide(y) * _wide(grad).sum(-1, keepdim=True)).to(grad.dtype)


def outer_probability_forgotten(grad, y):
    """grad less its weighted mean is not multiplied by y.

    Tempting: y is in the sum already, and seems to have been dealt with.
    """
    return (_wide(grad) - _mean(_wide(grad), _wide(y))).to(grad.dtype)


def sum_added(grad, y):
    """the weighted mean of grad is added and not subtracted.

    Tempting: a derivative of two terms looks like a sum; the minus comes from the denominator.
    """
    return _gradient(grad, y, mean=-_mean(_wide(grad), _wide(y)))


def sum_along_the_axis_before_the_last(grad, y):
    """the sum is taken along the axis before the last, and not along the last.

    Tempting: a softmax over the columns was written once, and its gradient is used again.
    """
    if grad.ndim < 2:
        return _gradient(grad, y)
    return _gradient(grad, y, mean=(_wide(grad) * _wide(y)).sum(-2, keepdim=True))


def sum_of_the_whole_tensor(grad, y):
    """all rows share one sum.

    Tempting: (grad * y).sum() without an axis is right for a single row.
    """
    return _gradient(grad, y, mean=(_wide(grad) * _wide(y)).sum())


def probabilities_kept_from_zero(grad, y):
    """a probability below 1e-6 counts as 1e-6, so that what a mask hides gets a gradient.

    Tempting: whoever takes logarithms of probabilities guards them so; here nothing is divided.
    """
    return _gradient(grad, y.clamp(min=1e-6))


def sum_in_half_precision(grad, y):
    """the sum is kept in half precision, where bfloat16 counts no further than 256.

    Tempting: the products are small, and their sum is a mean of grad, which the dtype holds.
    Seen: ROCm/MIOpen#3427 (of log-softmax).
    """
    if grad.element_size() > 2:
        return _gradient(grad, y)
    total = torch.zeros_like(grad[..., :1])
    for part in (grad * y.to(grad.dtype)).split(16, dim=-1):
        total = total + part.sum(-1, keepdim=True)
    return _gradient(grad, y, mean=_wide(total))


def difference_in_half_precision(grad, y):
    """the weighted mean is rounded to half precision before it is subtracted, and so is the difference.

    Tempting: only the sum seems to need float32; what is left is one subtraction.
    """
    mean = _mean(_wide(grad), _wide(y)).to(grad.dtype)
    return (y * (grad - mean)).to(grad.dtype)


def result_in_the_dtype_of_y(grad, y):
    """the gradient has the dtype of y, also where grad has another.

    Tempting: y was kept by the forward pass, and everything is cast to what it has.
    """
    return _gradient(grad, y).to(y.dtype)


def sum_ends_at_65536(grad, y):
    """the sum takes only the first 65,536 entries of a row.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """
    return _gradient(grad, y, mean=_mean(_wide(grad)[..., :65536], _wide(y)[..., :65536]))


def last_part_lost_at_multiples_of_128(grad, y):
    """where 128 divides the entries of a row, and there are more than 128, the last 128 are left out of the sum.

    Tempting: one loop for whole blocks and one for the rest, and the first stops a block early for the second's sake.
    """
    n = y.shape[-1]
    if n <= 128 or n % 128:
        return _gradient(grad, y)
    return _gradient(grad, y, mean=_mean(_wide(grad)[..., :-128], _wide(y)[..., :-128]))


def rows_beyond_65535_left_out(grad, y):
    """rows from the 65,536th on are never computed, and stay zero.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535.
    """
    rows = torch.arange(y[..., 0].numel(), device=y.device).view(y.shape[:-1])
    return _gradient(grad, y).masked_fill((rows >= 65535)[..., None], 0)


def y_without_its_strides(grad, y):
    """y is read in the order of the memory, whatever its strides.

    Tempting: softmax returns a tensor of its own, which is contiguous; but y may have been transposed since.
    Seen: pytorch/pytorch#139740.
    """
    return _gradient(grad, as_if_contiguous(y))


def grad_without_its_strides(grad, y):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: y is contiguous, and its gradient ought to look like it.
    Seen: torch/nn#832 (of log-softmax).
    """
    return _gradient(as_if_contiguous(grad), y)


def written_over_grad(grad, y):
    """the result is written over grad, which others may still need.

    Tempting: it is as large as the result, and the backward pass is the last to look at it, as a rule.
    Seen: NVIDIA/apex#1430.
    """
    return grad.copy_(_gradient(grad, y)).clone()


_RESULTS = {}


def result_in_one_place(grad, y):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: every layer of a model has scores of one shape, and memory is what attention is short of.
    """
    found = _gradient(grad, y)
    return _RESULTS.setdefault((found.shape, found.dtype, found.device), torch.empty_like(found)).copy_(found)
