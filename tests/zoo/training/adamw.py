"""The bugs that people make in adamw."""

from llama import implementation

LAYERS = implementation.load("vectorized")


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
