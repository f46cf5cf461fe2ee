"""The bugs that people make in silu."""

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, gradients, with_gradient


def probes():
    x = target.tensor([[1.0, -2.0, 3.0], [-0.5, 0.25, 4.0]])
    return [
        ((target.tensor([-1e4, 1e4]).double(),), {}),
        ((target.tensor(torch.linspace(-3, 3, 1027)),), {}),
        ((x.mT,), {}),
        again(lambda: [x.clone()], lambda x: [x + 1]),
        gradients(lambda: [x], transposed=True),
        _second_derivative,
    ]


def _second_derivative(silu):
    x = target.tensor([1.0, -2.0]).requires_grad_()
    (first,) = torch.autograd.grad(silu(x).sum(), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x) if first.requires_grad else None


def gelu_instead(x):
    """the activation is GELU.

    Tempting: the two curves look alike, and GPT has GELU in this place.
    """
    return F.gelu(x)


def slope_of_quick_gelu(x):
    """the sigmoid is taken of 1.702 x, as in the quick form of GELU.

    Tempting: x * sigmoid(1.702 * x) is written next to SiLU in every list of activations.
    """
    return x * torch.sigmoid(1.702 * x)


def sigmoid_written_out(x):
    """the sigmoid is written as 1 / (1 + exp(-x)): the value is right, but far below zero the gradient is 0 · inf.

    Tempting: the value is right everywhere, and only the backward pass shows it.
    Seen: trymirai/lalamo#328.
    """
    return x / (1 + torch.exp(-x))


def done_in_place(x):
    """the output overwrites x, which the caller may still need.

    Tempting: inplace=True saves memory and gives the right output.
    """
    return F.silu(x, inplace=True)


def tail_left_as_it_was(x):
    """from 1,024 elements on they are taken eight at a time, and those beyond the last eight come back as they were.

    Tempting: small tensors take the simple path, and large ones have sizes that eight divides.
    """
    y, n = F.silu(x), x.numel()
    if n < 1024:
        return y
    tail = torch.arange(n, device=x.device).view(x.shape) >= n // 8 * 8
    return torch.where(tail, x, y)


def strides_ignored(x):
    """the elements are read in the order of their memory, which is another where x is transposed or a slice.

    Tempting: an elementwise kernel needs no more than a pointer and a count.
    """
    return F.silu(as_if_contiguous(x))


_RESULTS = {}


def result_in_one_place(x):
    """without gradients the result lies in memory that the next call of the same shape writes to.

    Tempting: a decoder calls it thousands of times with one shape, and allocates nothing this way.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return F.silu(x)
    y = _RESULTS.setdefault((x.shape, x.dtype, x.device), torch.empty_like(x))
    with torch.no_grad():
        return y.copy_(F.silu(x))


def upstream_taken_for_contiguous(x):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: forward made x contiguous, and backward seemed to need nothing of the kind.
    Seen: fla-org/flash-linear-attention#871 (of a convolution).
    """
    return with_gradient(F.silu(x), as_if_contiguous)


class _SigmoidKept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        sigmoid = torch.sigmoid(x)
        ctx.save_for_backward(x, sigmoid)
        return x * sigmoid

    @staticmethod
    def backward(ctx, gradient):
        x, sigmoid = ctx.saved_tensors
        return gradient * sigmoid * (1 + x * (1 - sigmoid))


def sigmoid_constant_in_the_second_derivative(x):
    """the sigmoid is kept for the gradient, so that it counts as a constant in the second derivative.

    Tempting: it saves an exp; autograd differentiates the backward pass too, but not what forward has kept.
    """
    return _SigmoidKept.apply(x)


def relu_instead(x):
    """the activation is ReLU.

    Tempting: it is the activation that everybody learns first, and far from zero the two agree.
    """
    return F.relu(x)


def sigmoid_alone(x):
    """the result is the sigmoid of x, which x itself is not multiplied by.

    Tempting: SiLU is short for sigmoid linear unit, of which the first word is remembered.
    """
    return torch.sigmoid(x)


def tanh_in_place_of_the_sigmoid(x):
    """x is multiplied by tanh(x), and not by its sigmoid.

    Tempting: both are S-shaped, and Mish has a tanh in this place.
    """
    return x * torch.tanh(x)


def exponent_not_negated(x):
    """the exponent has the wrong sign: x / (1 + exp(x)).

    Tempting: one minus is easily lost, and the curve is as smooth as before.
    """
    return x * torch.sigmoid(-x)


def bracket_forgotten(x):
    """the brackets around 1 + exp(-x) are missing, so that x is divided by 1 and exp(-x) is added.

    Tempting: x / 1 + exp(-x) reads like the formula.
    """
    return x / 1 + torch.exp(-x)


def softplus_instead(x):
    """the activation is softplus, log(1 + exp(x)).

    Tempting: it is the smooth ReLU of the textbooks.
    """
    return F.softplus(x)


def hard_swish_instead(x):
    """the activation is hard swish, which is made of straight lines and a parabola.

    Tempting: swish is another name of SiLU, and hard swish its cheap form for phones.
    """
    return F.hardswish(x)


def softmax_for_the_sigmoid(x):
    """x is multiplied by its softmax over the last axis, and not by its sigmoid.

    Tempting: both turn scores into numbers between 0 and 1.
    """
    return x * x.softmax(-1)
