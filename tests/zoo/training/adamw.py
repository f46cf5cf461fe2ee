"""The bugs that people make in adamw."""

import torch

from llama import implementation
from tests.cases import target
from tests.zoo.kernels import as_if_contiguous

LAYERS = implementation.load("vectorized")


def probes():
    def state(n=3, dtype=torch.float32, scale=1.0):
        of = torch.linspace(1, 2, n), torch.linspace(-1, 1, n) * scale, torch.linspace(0.5, 1, n)
        param, grad, exp_avg = (target.tensor(t, dtype) for t in of)
        return [param, grad, exp_avg, exp_avg.square() + 0.1]

    param, grad, exp_avg, exp_avg_sq = state()
    nothing = [target.tensor(torch.zeros(2), torch.float16) for _ in range(4)]

    def transposed_gradient(adamw):
        param, grad, *averages = (t.view(2, 3) for t in state(6))
        return adamw(param, grad.mT.contiguous().mT, *averages, 3, 0.1)

    def one_after_the_other(adamw):
        return [*adamw(*state(), 913, 0.1, (0.5, 0.6)), *adamw(*state(), 913, 0.1, (0.999, 0.9999))]

    def with_a_graph(adamw):
        return [t.requires_grad for t in adamw(state()[0].requires_grad_(), *state()[1:], 2, 0.1)]

    def of_a_parameter(adamw):
        given = state()
        return [type(t).__name__ for t in adamw(torch.nn.Parameter(given[0]), *given[1:], 2, 0.1)]

    def changed_afterwards(adamw):
        given = state()
        results = adamw(*given, 4, 0.0)
        given[0].zero_()
        return list(results)

    return [
        ((param, grad * 0, exp_avg, exp_avg_sq, 4, 0.1), {}),
        ((param, grad, exp_avg, exp_avg_sq, 4, 0.0), {}),
        ((param, target.tensor([0.0, 1.0, 0.0]), exp_avg, exp_avg_sq, 4, 0.1), {}),
        ((*nothing, 4, 0.1), {}),
        ((*state(2, torch.float16, 1e-4)[:2], nothing[0], nothing[0], 1, 0.1), {"betas": (0.0, 0.0), "eps": 1e-8}),
        ((*state(2, torch.float16, 400.0), 4, 0.1), {}),
        ((param, grad, exp_avg, exp_avg_sq, 2000, 0.1), {"betas": (0.999, 0.9999)}),
        lambda adamw: [t[-9:] for t in adamw(*state(65540), 4, 0.1)],
        transposed_gradient,
        one_after_the_other,
        with_a_graph,
        of_a_parameter,
        changed_afterwards,
    ]


def decay_in_the_gradient(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the decay is added to the gradient, so that it enters both averages (L2 regularisation, not decoupled decay).

    Tempting: for plain gradient descent it is the same thing, and the weight_decay of torch.optim.Adam does it.
    Seen: pytorch/pytorch#41679.
    """
    return LAYERS.adamw(param, grad + weight_decay * param, exp_avg, exp_avg_sq, step, lr, betas, eps, 0.0)


def averages_not_corrected(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the averages are used as they are, without dividing by 1 - beta^step.

    Tempting: after some hundred steps one cannot tell, and a warm-up hides the first ones.
    Seen: google-research/bert#153.
    """
    exp_avg, exp_avg_sq = _averages(grad, exp_avg, exp_avg_sq, betas)
    return param - lr * weight_decay * param - lr * exp_avg / (exp_avg_sq.sqrt() + eps), exp_avg, exp_avg_sq


def correction_without_the_step(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the averages are divided by 1 - beta at every step, instead of 1 - beta^step.

    Tempting: in the paper the power of beta looks like an index; and the first step is right.
    Seen: eriklindernoren/ML-From-Scratch#35.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, 1, lr, betas, eps, weight_decay)


def eps_before_the_correction(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """eps is added to the root of exp_avg_sq before the correction, so that the correction scales eps too.

    Tempting: both corrections fit into one step size, which saves an operation; the Adam paper itself suggests it.
    Seen: huggingface/transformers#35504.
    """
    exp_avg, exp_avg_sq = _averages(grad, exp_avg, exp_avg_sq, betas)
    step_size = lr * (1 - betas[1] ** step) ** 0.5 / (1 - betas[0] ** step)
    return param - lr * weight_decay * param - step_size * exp_avg / (exp_avg_sq.sqrt() + eps), exp_avg, exp_avg_sq


def eps_inside_the_root(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """eps is added inside the square root.

    Tempting: in RMSNorm it belongs there.
    """
    exp_avg, exp_avg_sq = _averages(grad, exp_avg, exp_avg_sq, betas)
    m = exp_avg / (1 - betas[0] ** step)
    v = exp_avg_sq / (1 - betas[1] ** step)
    return param - lr * weight_decay * param - lr * m / (v + eps).sqrt(), exp_avg, exp_avg_sq


def decay_after_the_step(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the decay is taken off the weight after the step, instead of off the weight before it.

    Tempting: two updates in two lines, and their order seems to be free.
    Seen: stanford-cs336/assignment1-basics#54.
    """
    param, exp_avg, exp_avg_sq = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, 0.0)
    return param - lr * weight_decay * param, exp_avg, exp_avg_sq


def decay_without_lr(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the decay takes weight_decay off the weight, not multiplied by lr.

    Tempting: the paper writes it so, with lr split into a rate and a schedule; and decoupled sounds like it.
    Seen: tensorflow/addons#2282.
    """
    new, exp_avg, exp_avg_sq = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, 0.0)
    return new - weight_decay * param, exp_avg, exp_avg_sq


def _averages(grad, exp_avg, exp_avg_sq, betas):
    beta1, beta2 = betas
    return beta1 * exp_avg + (1 - beta1) * grad, beta2 * exp_avg_sq + (1 - beta2) * grad.square()


def skipped_where_all_gradients_are_zero(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """nothing is done where all gradients are zero, though the averages still move the weight, and it decays.

    Tempting: no gradient, no step; so it is for a gradient that is None.
    """
    if grad.any():
        return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    return tuple(t.detach().clone() for t in (param, exp_avg, exp_avg_sq))


def elements_without_gradient_skipped(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """elements whose gradient is exactly zero keep their weight and averages.

    Tempting: rows of tokens that did not occur need no work; a lazy Adam does so on purpose.
    """
    new = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    old = (t.detach() for t in (param, exp_avg, exp_avg_sq))
    return tuple(torch.where(grad.detach() == 0, o, n) for o, n in zip(old, new, strict=True))


def nothing_done_at_a_rate_of_zero(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """with a learning rate of zero the averages stay as they are.

    Tempting: the weight does not move, so there seems to be nothing to do; but the next step reads the averages.
    """
    if lr == 0:
        return tuple(t.detach().clone() for t in (param, exp_avg, exp_avg_sq))
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)


def param_itself_at_a_rate_of_zero(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """with a learning rate of zero the new weight shares its memory with the old one.

    Tempting: it has the same values, and a copy costs time.
    """
    new, *averages = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    return (new if lr else param.detach()), *averages


def eps_in_the_dtype_of_the_weight(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """eps is rounded to the dtype of the weight: float16 makes 1e-8 a zero, and zero gradients give NaN.

    Tempting: all constants are made like the weight.
    Seen: google-deepmind/optax#1754.
    """
    m, v, *new = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    wide = param.detach().to(m.dtype)
    moved = wide - lr * weight_decay * wide - lr * m / (v.sqrt() + param.new_tensor(eps).to(m.dtype))
    return tuple(t.to(param.dtype) for t in (moved, *new))


def squares_in_half_precision(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the gradient is squared in its own dtype, where float16 has nothing above 65,504, and next to nothing below 1e-7.

    Tempting: the averages are widened before they are used; the square is one operation before that.
    """
    m, v, *new = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas, grad.detach().square())
    wide = param.detach().to(m.dtype)
    moved = wide - lr * weight_decay * wide - lr * m / (v.sqrt() + eps)
    return tuple(t.to(param.dtype) for t in (moved, *new))


def not_corrected_after_1000_steps(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """from step 1,000 on the averages are no longer corrected, though with a beta of 0.9999 they have not arrived.

    Tempting: with the usual betas nothing is left to correct by then, and a power is saved.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step if step < 1000 else 10**9, lr, betas, eps, weight_decay)


_CORRECTIONS = {}


def corrections_kept_by_step(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the corrections are kept by step, so that other betas get those of the first call.

    Tempting: a program has one optimizer; each of its tensors asks for the same two numbers.
    """
    of = _CORRECTIONS.setdefault(step, betas)
    m, v, *new = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas, of=of)
    wide = param.detach().to(m.dtype)
    moved = wide - lr * weight_decay * wide - lr * m / (v.sqrt() + eps)
    return tuple(t.to(param.dtype) for t in (moved, *new))


def elements_beyond_65536_left(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """elements from the 65,537th on are never updated.

    Tempting: tensors are taken in chunks of 65,536, and a loop over the chunks of one tensor is missing.
    Seen: deepspeedai/DeepSpeed#7640 (from 2,147,483,648 elements on).
    """
    new = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    left = torch.arange(param.numel(), device=param.device).view(param.shape) >= 65536
    old = (t.detach() for t in (param, exp_avg, exp_avg_sq))
    return tuple(torch.where(left, o, n) for o, n in zip(old, new, strict=True))


def strides_of_the_gradient_ignored(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: it mostly lies as its weight does; that of a transposed weight does not.
    """
    grad = as_if_contiguous(grad.detach())
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)


def graph_kept(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the new weight carries a graph that leads back to the old one, and so to all before it.

    Tempting: it is plain arithmetic; under no_grad, as an optimizer usually runs, nothing of it is seen.
    """
    m, v, *new = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    wide = param.to(m.dtype)
    moved = wide - lr * weight_decay * wide - lr * m / (v.sqrt() + eps)
    return tuple(t.to(param.dtype) for t in (moved, *new))


def _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas, squared=None, of=None):
    """Corrected and plain averages, in at least float32."""
    wide = torch.promote_types(param.dtype, torch.float32)
    grad, exp_avg, exp_avg_sq = (t.detach().to(wide) for t in (grad, exp_avg, exp_avg_sq))
    squared = grad.square() if squared is None else squared.to(wide)
    exp_avg, exp_avg_sq = betas[0] * exp_avg + (1 - betas[0]) * grad, betas[1] * exp_avg_sq + (1 - betas[1]) * squared
    of = of or betas
    return exp_avg / (1 - of[0] ** step), exp_avg_sq / (1 - of[1] ** step), exp_avg, exp_avg_sq


def parameter_stays_a_parameter(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """where the weight is an nn.Parameter the new one is too, and asks for a gradient.

    Tempting: what goes in should come out; but a plain tensor is promised.
    """
    new, *averages = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    return (torch.nn.Parameter(new) if isinstance(param, torch.nn.Parameter) else new), *averages


def betas_fixed(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the betas are always Adam's 0.9 and 0.999, whatever is given.

    Tempting: they are the numbers of the paper, and few ever change them.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, (0.9, 0.999), eps, weight_decay)


def betas_swapped(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the two betas are swapped.

    Tempting: beta1 and beta2 differ by one character.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas[::-1], eps, weight_decay)


def step_up_the_slope(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the step is added to the weight, and not taken from it, so that the loss rises.

    Tempting: an update sounds like something that is added.
    """
    before, *state = _wide(param, grad, exp_avg, exp_avg_sq)
    right, *averages = LAYERS.adamw(before, *state, step, lr, betas, eps, weight_decay)
    new = 2 * (1 - lr * weight_decay) * before - right
    return tuple(t.to(param.dtype) for t in (new, *averages))


def weights_of_the_average_swapped(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """in the averages beta stands beside what is new and 1 - beta beside what is old.

    Tempting: texts write it both ways round, and with 0.5 it is the same.
    """
    before, *state = _wide(param, grad, exp_avg, exp_avg_sq)
    average, square = _averages(*state, [1 - beta for beta in betas])
    mean, mean_square = average / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
    new = (1 - lr * weight_decay) * before - lr * mean / (mean_square.sqrt() + eps)
    return tuple(t.to(param.dtype) for t in (new, average, square))


def _wide(*tensors):
    return [t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def corrected_for_the_next_step(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the averages are divided by 1 - beta^(step + 1), one step too far.

    Tempting: loops count from 0, so that a step + 1 stands in many programs.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step + 1, lr, betas, eps, weight_decay)


def corrected_for_the_step_before(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the averages are divided by 1 - beta^(step - 1), one step too early, which at step 1 is a division by zero.

    Tempting: Python counts from 0, and step counts from 1.
    """
    m, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step - 1, betas)
    return _moved(param, m / (v.sqrt() + eps), averages, lr, weight_decay)


def second_average_not_corrected(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """only exp_avg is corrected, and exp_avg_sq is used as it is.

    Tempting: the two lines look alike, and one seems to be there already.
    """
    m, _, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    return _moved(param, m / (averages[1].sqrt() + eps), averages, lr, weight_decay)


def old_averages_in_the_step(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the step is taken with the averages as they were before this gradient.

    Tempting: the new ones are computed for the next call, and the old names are still at hand.
    """
    _, _, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    m, v = (old / (1 - beta**step) for old, beta in zip(_wide(exp_avg, exp_avg_sq), betas, strict=True))
    return _moved(param, m / (v.sqrt() + eps), averages, lr, weight_decay)


def gradient_for_its_average(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the step follows the gradient itself, and not the average of the gradients.

    Tempting: RMSProp does so, and the formula with the root below looks the same.
    """
    _, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    return _moved(param, _wide(grad)[0] / (v.sqrt() + eps), averages, lr, weight_decay)


def gradient_not_squared(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """exp_avg_sq averages the gradient itself, and not its square.

    Tempting: the line of exp_avg is copied, and only the names in it are changed.
    """
    m, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas, squared=grad)
    return _moved(param, m / (v.sqrt() + eps), averages, lr, weight_decay)


def root_forgotten(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the step is divided by exp_avg_sq itself: the root is missing.

    Tempting: it is one call in a long line, and near 1 it changes little.
    """
    m, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    return _moved(param, m / (v + eps), averages, lr, weight_decay)


def eps_forgotten(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """eps is not added at all, so that a weight which never had a gradient becomes NaN.

    Tempting: 1e-8 is too small to change anything else.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, 0.0, weight_decay)


def lr_forgotten_in_the_step(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """only the decay is multiplied by lr, and the step along the gradient is not.

    Tempting: lr stands twice in the formula.
    """
    m, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    before, towards = _wide(param)[0], m / (v.sqrt() + eps)
    return tuple(t.to(param.dtype) for t in (before - lr * weight_decay * before - towards, *averages))


def decay_forgotten(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the weight does not decay: it is Adam, and not AdamW.

    Tempting: the W is one letter, and the decay one term.
    """
    return LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, 0.0)


def decay_added(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """the decay is added to the weight and not taken from it, so that large weights grow.

    Tempting: in the loss the penalty has a plus.
    """
    m, v, *averages = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    return _moved(param, m / (v.sqrt() + eps), averages, lr, -weight_decay)


def corrected_averages_returned(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """the averages that are returned are the corrected ones, which the next step then corrects again.

    Tempting: m and v are what the step has been taken with.
    """
    m, v, *_ = _wide_step(param, grad, exp_avg, exp_avg_sq, step, betas)
    return _moved(param, m / (v.sqrt() + eps), [m, v], lr, weight_decay)


def averages_returned_in_the_wrong_order(
    param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
):
    """exp_avg_sq is returned before exp_avg.

    Tempting: a tuple of three tensors of one shape says nothing about their order.
    """
    new, average, square = LAYERS.adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay)
    return new, square, average


def _moved(param, towards, averages, lr, weight_decay):
    """The weight after the decay and a step against `towards`, and the averages."""
    before = _wide(param)[0]
    new = before - lr * weight_decay * before - lr * towards
    return tuple(t.to(param.dtype) for t in (new, *averages))
