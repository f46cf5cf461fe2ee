"""The bugs that people make in swiglu_backward."""

from types import SimpleNamespace

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    def make(rows=2, d_ff=3, batch=1):
        x = torch.linspace(-1, 2, batch * rows * 2).view(batch, rows, 2).square()
        up = torch.linspace(-1, 1, d_ff * 2).view(d_ff, 2)
        weights = up, up.flip(0) + 0.5, up.mT + 0.25
        return [target.tensor(t).contiguous() for t in (x.flip(-1) - 1, x, *weights)]

    def laid_out(i, change):
        args = make(3)
        args[i] = change(args[i])
        return tuple(args), {}

    def mixed(wide):
        return tuple(t if i in wide else t.bfloat16() for i, t in enumerate(make())), {}

    def transposed(t):
        return t.mT.contiguous().mT

    half = [[300.0], [1.0], [[-30.0]], [[300.0]], [[1.0]]]
    open_gates, ones = [[1.0], [1.0], [[1e4], [-1e4]], [[2.0], [3.0]], [[1.0, 1.0]]], torch.ones(3000, 1)
    return [
        (tuple(target.tensor(t).half() for t in half), {}),
        (tuple(target.tensor(t).double() for t in open_gates), {}),
        (tuple(target.tensor(t).bfloat16() for t in (ones, ones, 20 * ones[:1], ones[:1], ones[:1])), {}),
        (tuple(make(130)), {}),
        (tuple(make(65540)), {}),
        (tuple(make(batch=3)), {}),
        (tuple(make(d_ff=300)), {}),
        (tuple(make(d_ff=256)), {}),
        mixed((2, 3, 4)),
        mixed((0, 1)),
        *(laid_out(i, transposed) for i in range(5)),
        again(make, lambda *args: [t + 1 for t in args]),
    ]


def _gradients(grad, x, w_gate, w_up, w_down, **instead):
    """The gradients; a value that is given by name, as a function of those before it, takes the place of the right one.

    Weights and gradients of weights have the names w_gate and grad_gate, the values of a token gate and toward_gate.
    """
    dtype = torch.float32
    for t in (grad, x, w_gate, w_up, w_down):
        dtype = torch.promote_types(dtype, t.dtype)
    wide = [t.detach().to(dtype) for t in (grad, x, w_gate, w_up, w_down)]
    v = SimpleNamespace(**dict(zip(("grad", "x", "w_gate", "w_up", "w_down"), wide, strict=True)))

    def let(name, right):
        setattr(v, name, instead.get(name, right)(v))

    let("gate", lambda v: v.x @ v.w_gate.T)
    let("up", lambda v: v.x @ v.w_up.T)
    let("s", lambda v: torch.sigmoid(v.gate))
    let("activated", lambda v: v.gate * v.s)
    let("slope", lambda v: v.s * (1 + v.gate * (1 - v.s)))
    let("hidden", lambda v: v.activated * v.up)
    let("toward_hidden", lambda v: v.grad @ v.w_down)
    let("toward_up", lambda v: v.toward_hidden * v.activated)
    let("toward_gate", lambda v: v.toward_hidden * v.slope * v.up)
    let("grad_x", lambda v: v.toward_gate @ v.w_gate + v.toward_up @ v.w_up)
    let("grad_gate", lambda v: _sum(v.toward_gate, v.x))
    let("grad_up", lambda v: _sum(v.toward_up, v.x))
    let("grad_down", lambda v: _sum(v.grad, v.hidden))
    found = zip((v.grad_x, v.grad_gate, v.grad_up, v.grad_down), (x, w_gate, w_up, w_down), strict=True)
    return tuple(gradient.to(of.dtype) for gradient, of in found)


def _sum(left, right):
    """The sum over tokens of left · rightᵀ."""
    return _rows(left).T @ _rows(right)


def _rows(t):
    return t.flatten(0, -2) if t.ndim > 1 else t[None]


def _of_tokens(which, grad, x, w_gate, w_up, w_down):
    """The gradient of x is right, those of weights are of these rows alone."""
    (grad_x, *_), rows = _gradients(grad, x, w_gate, w_up, w_down), [which(_rows(t)) for t in (grad, x)]
    return grad_x, *_gradients(*rows, w_gate, w_up, w_down)[1:]


def gate_and_up_swapped(grad, x, w_gate, w_up, w_down):
    """the gradients of w_gate and of w_up are exchanged.

    Tempting: both have one shape, and a kernel writes them where gate and up lay, in whichever order.
    Seen: unslothai/unsloth#3314.
    """
    grad_x, grad_gate, grad_up, grad_down = _gradients(grad, x, w_gate, w_up, w_down)
    return grad_x, grad_up.to(w_gate.dtype), grad_gate.to(w_up.dtype), grad_down


def up_taken_for_activated(grad, x, w_gate, w_up, w_down):
    """it is the gradient of a block in which the up-projection is activated and the gate is not.

    Tempting: papers call the two W and V, checkpoints w1 and w3, and both have one shape.
    """
    grad_x, grad_up, grad_gate, grad_down = _gradients(grad, x, w_up, w_gate, w_down)
    return grad_x, grad_gate, grad_up, grad_down


def x_through_the_gate_alone(grad, x, w_gate, w_up, w_down):
    """what comes back to x through the up-projection is missing.

    Tempting: grad_x is written once for the gate, and written is written.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, grad_x=lambda v: v.toward_gate @ v.w_gate)


def x_through_up_alone(grad, x, w_gate, w_up, w_down):
    """what comes back to x through the gate is missing.

    Tempting: a gate looks like a factor that is given, and factors have no gradient.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, grad_x=lambda v: v.toward_up @ v.w_up)


def sigmoid_held_constant(grad, x, w_gate, w_up, w_down):
    """the slope of the gate is its sigmoid alone, as if the sigmoid were a constant.

    Tempting: silu(gate) is gate times something between 0 and 1, and the derivative of that is at hand.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, slope=lambda v: v.s)


def slope_of_the_sigmoid(grad, x, w_gate, w_up, w_down):
    """the slope of the gate is that of a sigmoid, s · (1 - s).

    Tempting: it is the derivative that everybody knows by heart, and a gate ought to have a sigmoid.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, slope=lambda v: v.s * (1 - v.s))


def activation_without_a_slope(grad, x, w_gate, w_up, w_down):
    """the gate gets what comes back as if it had not been activated: its slope is 1.

    Tempting: silu(gate) and gate look alike from outside, and for large gates they are.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, slope=lambda v: torch.ones_like(v.s))


def slope_at_the_activated_gate(grad, x, w_gate, w_up, w_down):
    """the slope of silu is taken at silu(gate), and not at gate.

    Tempting: silu(gate) is what was kept; the gradients of sigmoid and ReLU need the result alone.
    """

    def slope(v):
        s = torch.sigmoid(v.activated)
        return s * (1 + v.activated * (1 - s))

    return _gradients(grad, x, w_gate, w_up, w_down, slope=slope)


def up_gets_the_gate_unactivated(grad, x, w_gate, w_up, w_down):
    """what comes back to up is multiplied by the gate as it was before its activation.

    Tempting: gate is the value that is kept from the forward pass.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, toward_up=lambda v: v.toward_hidden * v.gate)


def up_left_out_of_the_gate(grad, x, w_gate, w_up, w_down):
    """what comes back to the gate is not multiplied by up.

    Tempting: the activation has a gradient of its own, which is taken for the whole of it.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, toward_gate=lambda v: v.toward_hidden * v.slope)


def gate_left_out_of_up(grad, x, w_gate, w_up, w_down):
    """what comes back to up is not multiplied by the activated gate.

    Tempting: up is not activated, so that its gradient seems to pass as it is.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, toward_up=lambda v: v.toward_hidden)


def down_gets_up_without_the_gate(grad, x, w_gate, w_up, w_down):
    """the gradient of w_down is made of up alone, and not of the hidden values that w_down was multiplied by.

    Tempting: the hidden values are computed again to save memory, and the gate is forgotten in the second place.
    Seen: fla-org/flash-linear-attention#1071 (of a gated norm).
    """
    return _gradients(grad, x, w_gate, w_up, w_down, hidden=lambda v: v.up)


def down_gets_the_gate_without_up(grad, x, w_gate, w_up, w_down):
    """the gradient of w_down is made of the activated gate alone, without up.

    Tempting: in a block without a gate it would be so.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, hidden=lambda v: v.activated)


def down_gets_the_gate_unactivated(grad, x, w_gate, w_up, w_down):
    """the gradient of w_down is made of gate times up, and the gate is not activated in it.

    Tempting: gate and up are kept, silu(gate) is not.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, hidden=lambda v: v.gate * v.up)


def down_transposed(grad, x, w_gate, w_up, w_down):
    """the gradient of w_down is [d_ff d_model], the transpose of what it should be.

    Tempting: elsewhere weights are [in out], and `hidden.T @ grad` is right for these.
    """
    *others, grad_down = _gradients(grad, x, w_gate, w_up, w_down)
    return *others, grad_down.T.contiguous()


def grad_left_out(grad, x, w_gate, w_up, w_down):
    """it is the gradient of the sum of the result: grad is taken to be ones.

    Tempting: a test calls .sum().backward(), and there it is so.
    """
    return _gradients(torch.ones_like(grad), x, w_gate, w_up, w_down)


def weight_gradients_averaged(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are means over the tokens and not sums.

    Tempting: the loss is a mean over tokens; but grad has that factor already.
    """
    grad_x, *others = _gradients(grad, x, w_gate, w_up, w_down)
    return grad_x, *(g / max(1, len(_rows(x))) for g in others)


def weight_gradients_averaged_over_the_batch(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are divided by the first axis of x, the batch.

    Tempting: "sum over tokens, mean over the batch" is what many a course has.
    """
    grad_x, *others = _gradients(grad, x, w_gate, w_up, w_down)
    return grad_x, *(g / max(1, len(x)) if x.ndim > 2 else g for g in others)


def last_token_wins(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are those of the last token: they are written for each token and not added up.

    Tempting: `grad_up[f, i] = ...` stands in a loop beside `grad_x[token, i] = ...`.
    """
    return _of_tokens(lambda rows: rows[-1:], grad, x, w_gate, w_up, w_down)


def one_batch_entry_summed(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are summed over the tokens of the last batch entry alone.

    Tempting: a loop over the batch makes a new sum for each entry.
    """
    if x.ndim < 3 or len(x) == 0:
        return _gradients(grad, x, w_gate, w_up, w_down)
    grad_x = _gradients(grad, x, w_gate, w_up, w_down)[0]
    return grad_x, *_gradients(grad[-1], x[-1], w_gate, w_up, w_down)[1:]


def weight_gradients_of_the_last_128_tokens(grad, x, w_gate, w_up, w_down):
    """of the tokens, taken 128 at a time, only the last that were taken count in the gradients of the weights.

    Tempting: each round writes its product where the one before has written, instead of adding to it.
    """
    return _of_tokens(lambda rows: rows[max(0, len(rows) - 1) // 128 * 128 :], grad, x, w_gate, w_up, w_down)


def tokens_beyond_65535_left_out(grad, x, w_gate, w_up, w_down):
    """tokens from the 65,536th on have no part in the gradients of the weights.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    return _of_tokens(lambda rows: rows[:65535], grad, x, w_gate, w_up, w_down)


def tokens_added_in_half_precision(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are added up in half precision, where bfloat16 counts no further than 256.

    Tempting: each block of tokens adds its part to the result itself, which has the dtype of the weights.
    """
    right = _gradients(grad, x, w_gate, w_up, w_down)
    if w_gate.element_size() > 2:
        return right
    totals = [torch.zeros_like(g) for g in right[1:]]
    for part in zip(_rows(grad).split(16), _rows(x).split(16), strict=True):
        parts = _gradients(*part, w_gate, w_up, w_down)[1:]
        totals = [total + of_part for total, of_part in zip(totals, parts, strict=True)]
    return right[0], *totals


def up_multiplied_first_in_half_precision(grad, x, w_gate, w_up, w_down):
    """what comes back to hidden is multiplied by up first, which float16 overflows on, so that a shut gate gives NaN.

    Tempting: it is the product rule from left to right, and the slope a kernel that takes its gradient ready-made.
    """

    def toward_gate(v):
        product = v.toward_hidden * v.up
        if grad.dtype == torch.float16:
            product = product.half().to(product.dtype)
        return product * v.slope

    return _gradients(grad, x, w_gate, w_up, w_down, toward_gate=toward_gate)


def exponential_of_the_gate_written_out(grad, x, w_gate, w_up, w_down):
    """the sigmoid is e^gate / (1 + e^gate), which is NaN for large gates.

    Tempting: it is the form that is safe for negative ones.
    """
    return _gradients(grad, x, w_gate, w_up, w_down, s=lambda v: v.gate.exp() / (1 + v.gate.exp()))


def all_in_the_dtype_of_x(grad, x, w_gate, w_up, w_down):
    """all gradients have the dtype of x, also where the weights have another.

    Tempting: everything is cast back to x's dtype at the end.
    """
    return tuple(g.to(x.dtype) for g in _gradients(grad, x, w_gate, w_up, w_down))


def gradient_of_x_in_the_first_row(grad, x, w_gate, w_up, w_down):
    """the gradients of all rows of x land in row 0, and all others get none.

    Tempting: the pointer to what is read moves on from row to row, the one to what is written does not.
    Seen: ByteDance-Seed/Triton-distributed#180.
    """
    grad_x, *others = _gradients(grad, x, w_gate, w_up, w_down)
    rows = _rows(grad_x)
    first = torch.cat((rows.sum(0, keepdim=True), torch.zeros_like(rows[1:])))[: len(rows)]
    return first.view(x.shape), *others


def features_beyond_256_in_whole_blocks(grad, x, w_gate, w_up, w_down):
    """beyond 256 hidden features they are taken 256 at a time, and those that do not fill the last block get nothing.

    Tempting: Llama's d_ff is a multiple of 256; `multiple_of` in its config says so.
    """
    d_ff = len(w_gate)
    return _first_features(d_ff // 256 * 256 if d_ff > 256 else d_ff, grad, x, w_gate, w_up, w_down)


def last_features_lost_at_multiples_of_128(grad, x, w_gate, w_up, w_down):
    """where 128 divides the number of hidden features, and there are more than that, the last 128 get nothing.

    Tempting: d_ff % 128 features are left for the last round, and here that is none.
    """
    d_ff = len(w_gate)
    return _first_features(d_ff if d_ff % 128 or d_ff <= 128 else d_ff - 128, grad, x, w_gate, w_up, w_down)


def _first_features(count, *args):
    """The gradients where only so many hidden features take part on the way back."""

    def some(values):
        return values * (torch.arange(values.shape[-1], device=values.device) < count)

    instead = {
        "hidden": lambda v: some(v.activated * v.up),
        "toward_hidden": lambda v: some(v.grad @ v.w_down),
    }
    return _gradients(*args, **instead)


def x_without_its_strides(grad, x, w_gate, w_up, w_down):
    """x is read in the order of the memory, whatever its strides.

    Tempting: a kernel takes a pointer, and most tensors are contiguous.
    """
    return _gradients(grad, as_if_contiguous(x), w_gate, w_up, w_down)


def grad_without_its_strides(grad, x, w_gate, w_up, w_down):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: x was made contiguous in the forward pass, and nobody thought of grad.
    """
    return _gradients(as_if_contiguous(grad), x, w_gate, w_up, w_down)


_KEPT = {}


def added_to_those_of_the_last_call(grad, x, w_gate, w_up, w_down):
    """the gradients of the weights are added to those of the calls before with the same weights.

    Tempting: torch adds to .grad in every backward pass, until somebody sets it to zero.
    """
    grad_x, *of_weights = _gradients(grad, x, w_gate, w_up, w_down)
    key = x.device, *((tuple(w.shape), w.dtype) for w in (w_gate, w_up, w_down))
    _KEPT[key] = [new + old for new, old in zip(of_weights, _KEPT.get(key, [0, 0, 0]), strict=True)]
    return grad_x, *_KEPT[key]
