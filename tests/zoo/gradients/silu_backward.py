"""The bugs that people make in silu_backward."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, within


def probes():
    x, grad = target.tensor([[1.0, -2.0, 3.0], [-0.5, 0.25, 4.0]]), target.tensor([[1.0, 2.0, -1.0], [3.0, 0.5, -2.0]])
    ends, long = target.tensor([-1e4, 1e4]).double(), target.tensor(torch.linspace(-3, 3, 1027))
    return [
        ((target.tensor([1.0, 2.0]).double(), ends), {}),
        ((long.flip(0), long), {}),
        ((grad, x.mT.contiguous().mT), {}),
        ((grad.mT.contiguous().mT, x), {}),
        ((grad, x.bfloat16()), {}),
        ((grad.bfloat16(), x), {}),
        within(torch.no_grad, lambda: [grad, x]),
        again(lambda: [grad.clone(), x.clone()], lambda grad, x: [grad + 1, x + 1]),
    ]


def _wide(*tensors):
    dtype = torch.promote_types(tensors[0].dtype, tensors[1].dtype)
    return [t.detach().to(torch.promote_types(dtype, torch.float32)) for t in tensors]


def _gradient(grad, x, slope):
    """grad times what `slope` makes of x and its sigmoid."""
    wide, at = _wide(grad, x)
    return (wide * slope(at, torch.sigmoid(at))).to(x.dtype)


def _right(x, s):
    return s * (1 + x * (1 - s))


def sigmoid_held_constant(grad, x):
    """the sigmoid is taken for a constant, so that the slope is the sigmoid alone.

    Tempting: y is x times something between 0 and 1, and the derivative of that is at hand.
    """
    return _gradient(grad, x, lambda x, s: s)


def slope_of_the_sigmoid(grad, x):
    """the slope is that of the sigmoid, s · (1 - s), and not that of x times the sigmoid.

    Tempting: it is the derivative that everybody knows by heart.
    """
    return _gradient(grad, x, lambda x, s: s * (1 - s))


def first_term_missing(grad, x):
    """the slope is x · s · (1 - s), without the sigmoid itself.

    Tempting: the chain rule through the sigmoid is the hard part, and what remains seems to be nothing.
    """
    return _gradient(grad, x, lambda x, s: x * s * (1 - s))


def x_missing_in_the_second_term(grad, x):
    """the second term is s · (1 - s) without x, so that the slope is s · (2 - s).

    Tempting: s + s · (1 - s) looks like a product rule that is complete.
    """
    return _gradient(grad, x, lambda x, s: s + s * (1 - s))


def sigmoid_missing_in_the_second_term(grad, x):
    """the slope is s + x · (1 - s): the second term lacks the sigmoid.

    Tempting: s · (1 + x · (1 - s)) without its outer brackets. With y in place of x it would be right: y + s · (1 - y).
    """
    return _gradient(grad, x, lambda x, s: s + x * (1 - s))


def second_term_subtracted(grad, x):
    """the second term is subtracted and not added: s · (1 - x · (1 - s)).

    Tempting: exp(-x) brings a minus into the derivative, and the power of -1 the one that takes it away.
    """
    return _gradient(grad, x, lambda x, s: s * (1 - x * (1 - s)))


def slope_at_the_result(grad, x):
    """the slope is taken at y, the result of the forward pass, and not at x.

    Tempting: the gradients of sigmoid, tanh and ReLU need the result alone, and all activations share one interface.
    """
    return _gradient(grad, x, lambda x, s: _right(x * s, torch.sigmoid(x * s)))


def grad_and_x_swapped(grad, x):
    """grad and x are taken for each other: it is x times the slope at grad.

    Tempting: both have one shape, and libraries do not agree which comes first.
    """
    return _gradient(x, grad, _right).to(x.dtype)


def grad_left_out(grad, x):
    """the slope itself comes back, without grad.

    Tempting: a test that sums up the result has a grad of ones.
    """
    return _gradient(torch.ones_like(grad), x, _right)


def grad_added(grad, x):
    """grad and the slope are added, and not multiplied.

    Tempting: gradients are added in so many other places.
    """
    wide, at = _wide(grad, x)
    return (wide + _right(at, torch.sigmoid(at))).to(x.dtype)


def slope_of_relu(grad, x):
    """grad passes where x is positive, and nowhere else: it is the gradient of ReLU.

    Tempting: far from zero the two agree.
    """
    return _gradient(grad, x, lambda x, s: (x > 0).to(x.dtype))


def slope_of_gelu(grad, x):
    """it is the gradient of GELU.

    Tempting: the two curves look alike, and GPT has GELU in this place.
    """
    return torch.ops.aten.gelu_backward(*_wide(grad, x)).to(x.dtype)


def exponential_of_minus_x_written_out(grad, x):
    """exp(-x) is written out: for x far below zero it is infinite, and the gradient is NaN.

    Tempting: it is the formula as one gets it by hand, and right for all numbers that one tries.
    Seen: mir-group/nequip#604.
    """

    def slope(x, _):
        e = torch.exp(-x)
        return (1 + e + x * e) / (1 + e) ** 2

    return _gradient(grad, x, slope)


def exponential_of_x_written_out(grad, x):
    """exp(x) is written out: for large x it is infinite, and the gradient is NaN.

    Tempting: e^x · (e^x + x + 1) / (e^x + 1)² is the form in which many tables have it.
    """

    def slope(x, _):
        e = torch.exp(x)
        return e * (e + x + 1) / (e + 1) ** 2

    return _gradient(grad, x, slope)


def result_in_the_dtype_of_grad(grad, x):
    """the result has the dtype of grad, also where x has another.

    Tempting: it is made from grad, and mostly both have the same.
    """
    return _gradient(grad, x, _right).to(grad.dtype)


def grad_overwritten(grad, x):
    """the result is right, but it is written over grad.

    Tempting: nobody needs grad any more, until another path leads back from the same result.
    """
    grad.copy_(_gradient(grad, x, _right))
    return grad


def tail_passed_through(grad, x):
    """from 1,024 elements on they are taken eight at a time, and those beyond the last eight are grad as it came.

    Tempting: small tensors take the simple path, and large ones have sizes that eight divides.
    """
    grad_x, n = _gradient(grad, x, _right), x.numel()
    if n < 1024:
        return grad_x
    tail = torch.arange(n, device=x.device).view(x.shape) >= n // 8 * 8
    return torch.where(tail, grad.to(x.dtype), grad_x)


def x_without_its_strides(grad, x):
    """x is read in the order of its memory, which is another where it is transposed or a slice.

    Tempting: an elementwise kernel needs no more than a pointer and a count.
    """
    return _gradient(grad, as_if_contiguous(x), _right)


def grad_without_its_strides(grad, x):
    """grad is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: x was made contiguous in the forward pass, and nobody thought of grad.
    """
    return _gradient(as_if_contiguous(grad), x, _right)


_RESULTS = {}


def result_in_one_place(grad, x):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: a backward pass meets one shape in every layer, and the layer before has used its gradient by then.
    """
    kept = _RESULTS.setdefault((x.shape, x.dtype, x.device), torch.empty_like(x))
    with torch.no_grad():
        return kept.copy_(_gradient(grad, x, _right))


def autograd_without_grad_mode(grad, x):
    """it is taken by autograd, with grad mode as it is, so that it raises where grad mode is off.

    Tempting: in a test grad mode is on. A training loop without autograd turns it off.
    """
    toward, at = _wide(grad, x)
    (grad_x,) = torch.autograd.grad(at.requires_grad_() * torch.sigmoid(at), at, toward)
    return grad_x.to(x.dtype)
