"""The bugs that people make in linear_backward."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    grad, x = target.tensor([[1.0, 2.0], [5.0, 7.0]]), target.tensor([[3.0, -1.0], [2.0, 4.0]])
    weight, half = target.tensor([[1.0, 2.0], [3.0, 5.0]]), target.tensor(torch.ones(5000, 1)).bfloat16()
    rows = target.tensor(torch.linspace(1, 2, 130))[:, None]

    def many(f):
        ones = target.tensor(torch.ones(65540, 1))
        return f(ones, ones, ones[:1])[1]

    return [
        ((grad, x, weight), {}),
        ((grad[None], x[None], weight), {}),
        ((torch.stack((grad, 2 * grad)), torch.stack((x, x.flip(0))), weight), {}),
        ((rows, rows, rows[:1]), {}),
        ((half, half, half[:1]), {}),
        many,
        ((grad.bfloat16(), x.bfloat16(), weight), {}),
        ((grad, x.bfloat16(), weight), {}),
        lambda f: f(grad.clone().mT, x.clone(), weight.clone()),
        lambda f: f(grad.clone(), x.clone().mT, weight.clone()),
        lambda f: f(grad.clone(), x.clone(), weight.clone().mT),
        again(lambda: [grad, x, weight]),
        again(lambda: [grad, x, weight], lambda grad, x, weight: [grad.flip(0), x, weight]),
    ]


def _rows(t):
    """All tokens one after the other, in at least float32."""
    return t.detach().to(torch.promote_types(t.dtype, torch.float32)).reshape(t.shape[:-1].numel(), t.shape[-1])


def _of_x(grad, x, weight):
    dtype = torch.promote_types(torch.promote_types(grad.dtype, weight.dtype), torch.float32)
    return (_rows(grad).to(dtype) @ _rows(weight).to(dtype)).view(x.shape).to(x.dtype)


def _of_weight(grad, x, weight):
    dtype = torch.promote_types(torch.promote_types(grad.dtype, x.dtype), torch.float32)
    return (_rows(grad).to(dtype).T @ _rows(x).to(dtype)).to(weight.dtype)


def weight_turned_where_it_fits(grad, x, weight):
    """grad is multiplied by the weight turned, as x is in the forward pass, wherever a square weight allows it.

    Tempting: the forward pass is x · weightᵀ, and the line is copied; only where d_in is not d_out does it fail.
    Seen: nntile/nntile#433 (found in review).
    """
    square = weight.shape[0] == weight.shape[1]
    return _of_x(grad, x, weight.T if square else weight), _of_weight(grad, x, weight)


def weight_gradient_turned(grad, x, weight):
    """the gradient of the weight is [d_in d_out], xᵀ · grad, and not [d_out d_in].

    Tempting: on paper y is x · W, and there it is right.
    """
    return _of_x(grad, x, weight), _of_weight(grad, x, weight).T


def weight_gradient_turned_where_it_fits(grad, x, weight):
    """the gradient of a square weight is turned: it is xᵀ · grad and not gradᵀ · x.

    Tempting: whichever product has the right shape is taken, and with a square weight both have.
    """
    found = _of_weight(grad, x, weight)
    return _of_x(grad, x, weight), found.T if weight.shape[0] == weight.shape[1] else found


def grad_reshaped_and_not_turned(grad, x, weight):
    """for the gradient of the weight grad is reshaped to [d_out tokens] where it should be turned, which scrambles it.

    Tempting: the product needs that shape, and a reshape gives it.
    """
    scrambled = grad.reshape(grad.shape[-1], grad.shape[:-1].numel()).T.reshape(grad.shape)
    return _of_x(grad, x, weight), _of_weight(scrambled, x, weight)


def gradients_exchanged(grad, x, weight):
    """the two gradients come in the wrong order: that of the weight first.

    Tempting: many write the parameters' gradients first, and x is what is passed on at the end.
    """
    return _of_weight(grad, x, weight), _of_x(grad, x, weight)


def weight_gradient_averaged(grad, x, weight):
    """the gradient of the weight is the mean over the tokens and not their sum.

    Tempting: the loss is a mean over tokens; but grad has that factor already.
    """
    return _of_x(grad, x, weight), _of_weight(grad, x, weight) / max(1, x.shape[:-1].numel())


def weight_gradient_averaged_over_the_batch(grad, x, weight):
    """the gradient of the weight is divided by the size of the first axis.

    Tempting: courses divide by the number of examples here, since their loss has not done so.
    """
    examples = len(x) if x.ndim > 1 else 1
    return _of_x(grad, x, weight), _of_weight(grad, x, weight) / max(1, examples)


def last_batch_entry_alone(grad, x, weight):
    """the gradient of the weight is summed over the sequence of the last batch entry alone.

    Tempting: a loop over the batch makes a new sum for each entry.
    """
    if x.ndim < 3 or len(x) == 0:
        return _of_x(grad, x, weight), _of_weight(grad, x, weight)
    return _of_x(grad, x, weight), _of_weight(grad[-1], x[-1], weight)


def leading_axes_not_summed(grad, x, weight):
    """the gradient of the weight has a matrix for each batch entry: only the sequence is summed over.

    Tempting: `grad.mT @ x` is right for [tokens d_out], and runs for any number of axes.
    Seen: flashlight/flashlight#760.
    """
    if x.ndim < 3:
        return _of_x(grad, x, weight), _of_weight(grad, x, weight)
    return _of_x(grad, x, weight), (grad.mT.to(weight.dtype) @ x.to(weight.dtype))


def last_token_wins(grad, x, weight):
    """the gradient of the weight is that of the last token: it is written for each token and not added up.

    Tempting: `grad_weight[o, i] = ...` stands in a loop beside `grad_x[token, i] = ...`.
    """
    last = [t.reshape(t.shape[:-1].numel(), t.shape[-1])[-1:] for t in (grad, x)]
    return _of_x(grad, x, weight), _of_weight(*last, weight)


def tokens_added_in_half_precision(grad, x, weight):
    """the gradients of the weight are added up in half precision, where bfloat16 counts no further than 256.

    Tempting: each block of tokens adds its part to the result itself, which has the dtype of the weight.
    """
    if weight.element_size() > 2:
        return _of_x(grad, x, weight), _of_weight(grad, x, weight)
    total = torch.zeros_like(weight)
    for some, tokens in zip(_rows(grad).split(16), _rows(x).split(16), strict=True):
        total = total + _of_weight(some, tokens, weight)
    return _of_x(grad, x, weight), total


def tokens_beyond_128_left_out(grad, x, weight):
    """the gradient of the weight takes in only the first 128 tokens.

    Tempting: each block of tokens writes its share, and with one block nothing has to be added up.
    """
    return _of_x(grad, x, weight), _of_weight(_rows(grad)[:128], _rows(x)[:128], weight)


def tokens_beyond_65535_left_out(grad, x, weight):
    """tokens from the 65,536th on have no part in the gradient of the weight.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    return _of_x(grad, x, weight), _of_weight(_rows(grad)[:65535], _rows(x)[:65535], weight)


def weight_gradient_in_the_dtype_of_x(grad, x, weight):
    """the gradient of the weight has the dtype of x, also where the weight has another.

    Tempting: everything is cast back to x's dtype at the end.
    """
    return _of_x(grad, x, weight), _of_weight(grad, x, weight).to(x.dtype)


def grad_without_its_strides(grad, x, weight):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: y was contiguous, and its gradient ought to look like it.
    """
    flat = as_if_contiguous(grad)
    return _of_x(flat, x, weight), _of_weight(flat, x, weight)


def x_without_its_strides(grad, x, weight):
    """x is read in the order of the memory, whatever its strides.

    Tempting: a kernel takes a pointer, and most tensors are contiguous.
    """
    return _of_x(grad, x, weight), _of_weight(grad, as_if_contiguous(x), weight)


def weight_without_its_strides(grad, x, weight):
    """the weight is read in the order of the memory, whatever its strides.

    Tempting: a parameter is contiguous; one that is tied or turned is not.
    """
    return _of_x(grad, x, as_if_contiguous(weight)), _of_weight(grad, x, weight)


_SUMS = {}


def added_to_the_last_gradient(grad, x, weight):
    """the gradient of the weight goes on from that of the last call with the same shapes.

    Tempting: autograd adds to .grad until somebody sets it to zero, and a kernel's `beta=1` does it for nothing.
    """
    found, key = _of_weight(grad, x, weight), (x.shape, weight.shape, weight.dtype, weight.device)
    _SUMS[key] = _SUMS[key] + found if key in _SUMS else found
    return _of_x(grad, x, weight), _SUMS[key].clone()
