"""The bugs that people make in rms_norm_backward."""

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def probes():
    x, grad = target.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0]]), target.tensor([[1.0, 0.0, 2.0], [-1.0, 3.0, 0.5]])
    weight, half = target.tensor([1.0, 2.0, 3.0]), target.tensor([[1000.0, 200.0]]).half()
    ones = target.tensor(torch.ones(6000, 1))
    return [
        ((grad, x, weight, 3.0), {}),
        ((grad[None], x[None], weight), {}),
        ((torch.cat((grad[None], 2 * grad[None])), torch.cat((x[None], 3 * x[None])), weight), {}),
        ((half, half, half[0] / 1000), {}),
        ((ones.bfloat16(), ones.bfloat16(), ones[0].bfloat16()), {}),
        ((target.tensor(torch.ones(65540, 1)), target.tensor(torch.ones(65540, 1)), weight[:1]), {}),
        ((grad.bfloat16(), x.bfloat16(), weight), {}),
        (
            (
                target.tensor(torch.ones(2, 256)),
                target.tensor(torch.linspace(1, 2, 512)).view(2, 256),
                weight.new_ones(256),
            ),
            {},
        ),
        lambda f: f(grad.clone(), x.mT.contiguous().mT, weight.clone()),
        lambda f: f(grad.mT.contiguous().mT, x.clone(), weight.clone()),
    ]


def _wide(t):
    return t.detach().to(torch.promote_types(t.dtype, torch.float32))


def _gradient(grad, x, weight, eps=1e-5, *, statistic=1.0, of_mean=None, of_first=None, towards=None, d_model=None):
    """The gradients; what is given by name takes the place of what is right."""
    wide, toward, w = _wide(x), _wide(grad), _wide(weight)
    r = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    along = (toward * (w if of_mean is None else of_mean) * wide).sum(-1, keepdim=True) / (d_model or x.shape[-1])
    grad_x = r * (toward * (w if of_first is None else of_first) - statistic * wide * r.square() * along)
    product = (toward if towards is None else towards) * wide * r
    return grad_x.to(x.dtype), _sum(product).to(weight.dtype)


def _sum(rows):
    """Over all tokens."""
    return rows.reshape(-1, rows.shape[-1]).sum(0)


def statistic_held_constant(grad, x, weight, eps=1e-5):
    """the root mean square is taken for a constant, so that the second term of grad_x is missing.

    Tempting: y is x times a number times weight, and the derivative of that is at hand.
    """
    return _gradient(grad, x, weight, eps, statistic=0.0)


def statistic_added(grad, x, weight, eps=1e-5):
    """the second term of grad_x is added and not subtracted.

    Tempting: two terms of one derivative look like a sum; the minus comes from the power of -1/2.
    """
    return _gradient(grad, x, weight, eps, statistic=-1.0)


def statistic_halved(grad, x, weight, eps=1e-5):
    """the second term of grad_x is half as large as it should be.

    Tempting: the 2 of x² and the 1/2 of the root cancel, and one of them is easily counted twice.
    """
    return _gradient(grad, x, weight, eps, statistic=0.5)


def mean_not_divided_by_d_model(grad, x, weight, eps=1e-5):
    """what comes back along x is summed over the features and not averaged, so that the second term is too large.

    Tempting: the derivative of a sum of squares is 2x; that the statistic is a mean is easily lost.
    """
    return _gradient(grad, x, weight, eps, d_model=1)


def reciprocal_root_once(grad, x, weight, eps=1e-5):
    """the second term has the reciprocal root squared where it should be to the third power.

    Tempting: r stands outside the bracket already, and x · r is the normalised x, of which there are two.
    """
    wide, toward = _wide(x), _wide(grad) * _wide(weight)
    r = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    grad_x = r * (toward - wide * r * (toward * wide).mean(-1, keepdim=True))
    return grad_x.to(x.dtype), _gradient(grad, x, weight, eps)[1]


def weight_left_out_of_grad_x(grad, x, weight, eps=1e-5):
    """grad is not multiplied by weight before it goes back to x.

    Tempting: weights begin as ones, and a test with ones does not see it.
    """
    ones = torch.ones_like(_wide(weight))
    return _gradient(grad, x, weight, eps, of_first=ones, of_mean=ones)


def weight_left_out_of_the_mean(grad, x, weight, eps=1e-5):
    """the mean in the second term of grad_x is taken of grad · x without weight.

    Tempting: weight is multiplied into the first term, which is where one sees it.
    """
    return _gradient(grad, x, weight, eps, of_mean=torch.ones_like(_wide(weight)))


def weight_in_its_own_gradient(grad, x, weight, eps=1e-5):
    """the gradient of weight is multiplied by weight.

    Tempting: grad · weight has been computed for grad_x, and is taken for grad.
    """
    return _gradient(grad, x, weight, eps, towards=_wide(grad) * _wide(weight))


def weight_gradient_of_x_itself(grad, x, weight, eps=1e-5):
    """the gradient of weight is grad · x, without the division by the root mean square.

    Tempting: in y = x · weight it would be so.
    """
    return _gradient(grad, x, weight, eps)[0], _sum(_wide(grad) * _wide(x)).to(weight.dtype)


def weight_gradient_averaged(grad, x, weight, eps=1e-5):
    """the gradient of weight is the mean over the tokens and not their sum.

    Tempting: the loss is a mean over tokens; but grad has that factor already.
    """
    grad_x, grad_weight = _gradient(grad, x, weight, eps)
    return grad_x, grad_weight / max(1, x[..., 0].numel())


def last_token_wins(grad, x, weight, eps=1e-5):
    """the gradient of weight is that of the last token: it is written for each token and not added up.

    Tempting: `grad_weight[i] = ...` stands in a loop beside `grad_x[token, i] = ...`.
    """
    grad_x, _ = _gradient(grad, x, weight, eps)
    last = [t.reshape(-1, t.shape[-1])[-1:] for t in (grad, x)]
    return grad_x, _gradient(*last, weight, eps)[1]


def one_batch_entry_summed(grad, x, weight, eps=1e-5):
    """the gradient of weight is summed over the sequence of the last batch entry alone.

    Tempting: a loop over the batch makes a new sum for each entry.
    """
    grad_x, grad_weight = _gradient(grad, x, weight, eps)
    return (grad_x, grad_weight) if x.ndim < 3 or len(x) == 0 else (grad_x, _gradient(grad[-1], x[-1], weight, eps)[1])


def eps_left_out(grad, x, weight, eps=1e-5):
    """eps is left out of the root, so that a token of zeros gives NaN.

    Tempting: eps is a constant, and a constant has no derivative.
    """
    return _gradient(grad, x, weight, 0.0)


def eps_fixed(grad, x, weight, eps=1e-5):
    """eps is always 1e-6, whatever is passed.

    Tempting: the gradient is written far from where the layer was given its eps.
    """
    return _gradient(grad, x, weight, 1e-6)


def eps_outside_the_root(grad, x, weight, eps=1e-5):
    """eps is added to the root and not to the mean square.

    Tempting: "the root, plus a little" is how one guards any division against zero.
    """
    wide, toward = _wide(x), _wide(grad) * _wide(weight)
    r = 1 / (wide.square().mean(-1, keepdim=True).sqrt() + eps)
    grad_x = r * (toward - wide * r.square() * (toward * wide).mean(-1, keepdim=True))
    return grad_x.to(x.dtype), _sum(_wide(grad) * wide * r).to(weight.dtype)


def mean_subtracted(grad, x, weight, eps=1e-5):
    """it is the gradient of LayerNorm, which subtracts the mean.

    Tempting: torch has a kernel for the backward pass of LayerNorm.
    """
    wide, toward = _wide(x), _wide(grad) * _wide(weight)
    centred = wide - wide.mean(-1, keepdim=True)
    r = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    along = (toward * centred).mean(-1, keepdim=True)
    grad_x = r * (toward - toward.mean(-1, keepdim=True) - centred * r.square() * along)
    return grad_x.to(x.dtype), _sum(_wide(grad) * centred * r).to(weight.dtype)


def mean_over_the_sequence(grad, x, weight, eps=1e-5):
    """the mean in the second term is taken over the sequence too, so that tokens reach each other.

    Tempting: `.mean()` without an axis, or with one too many.
    """
    if x.ndim < 2:
        return _gradient(grad, x, weight, eps)
    wide, toward = _wide(x), _wide(grad) * _wide(weight)
    r = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    grad_x = r * (toward - wide * r.square() * (toward * wide).mean((-2, -1), keepdim=True))
    return grad_x.to(x.dtype), _gradient(grad, x, weight, eps)[1]


def squares_in_half_precision(grad, x, weight, eps=1e-5):
    """the squares are taken in x's own dtype, so that in float16 anything above 255 overflows.

    Tempting: it is the formula as written, and float32 and bfloat16 never show it.
    """
    wide, toward = _wide(x), _wide(grad) * _wide(weight)
    r = torch.rsqrt(_wide(x.square()).mean(-1, keepdim=True) + eps)
    grad_x = r * (toward - wide * r.square() * (toward * wide).mean(-1, keepdim=True))
    return grad_x.to(x.dtype), _sum(_wide(grad) * wide * r).to(weight.dtype)


def tokens_added_in_half_precision(grad, x, weight, eps=1e-5):
    """the gradients of weight are added up in half precision, where bfloat16 counts no further than 256.

    Tempting: each block of rows adds its part to the result itself, which has the dtype of the weight.
    """
    grad_x, grad_weight = _gradient(grad, x, weight, eps)
    if weight.element_size() > 2:
        return grad_x, grad_weight
    wide = _wide(x)
    r = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    total = torch.zeros_like(weight)
    for row in (_wide(grad) * wide * r).reshape(-1, x.shape[-1]).to(weight.dtype).split(16):
        total = total + row.sum(0)
    return grad_x, total


def weight_gradient_in_the_dtype_of_x(grad, x, weight, eps=1e-5):
    """the gradient of weight has the dtype of x, also where weight has a wider one.

    Tempting: everything is cast back to x's dtype at the end.
    """
    grad_x, grad_weight = _gradient(grad, x, weight, eps)
    return grad_x, grad_weight.to(x.dtype)


def rows_beyond_65535_left_out(grad, x, weight, eps=1e-5):
    """tokens from the 65,536th on have no part in the gradient of weight.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535.
    """
    grad_x, _ = _gradient(grad, x, weight, eps)
    first = [t.reshape(-1, t.shape[-1])[:65535] for t in (grad, x)]
    return grad_x, _gradient(*first, weight, eps)[1]


def last_part_lost_at_multiples_of_128(grad, x, weight, eps=1e-5):
    """where 128 divides d_model, and d_model is more than that, the last 128 features are left out of the second mean.

    Tempting: one loop for whole blocks and one for the rest, and the first stops a block early for the second's sake.
    """
    d_model = x.shape[-1]
    if d_model <= 128 or d_model % 128:
        return _gradient(grad, x, weight, eps)
    of_mean = _wide(weight).clone()
    of_mean[-128:] = 0
    return _gradient(grad, x, weight, eps, of_mean=of_mean)


def x_without_its_strides(grad, x, weight, eps=1e-5):
    """x is read in the order of the memory, whatever its strides.

    Tempting: a kernel takes a pointer, and most tensors are contiguous.
    """
    return _gradient(grad, as_if_contiguous(x), weight, eps)


def grad_without_its_strides(grad, x, weight, eps=1e-5):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: x was made contiguous in the forward pass, and nobody thought of grad.
    """
    return _gradient(as_if_contiguous(grad), x, weight, eps)
