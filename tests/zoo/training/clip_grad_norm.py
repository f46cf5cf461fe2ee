"""The bugs that people make in clip_grad_norm."""

import torch

from llama import implementation
from tests.cases import target


def probes():
    short, large = target.tensor([0.03, -0.04]), target.tensor([300.0, 400.0]).half()
    return [(([short, 2 * short], 1.0), {}), (([large], 1.0), {}), (([short.half(), short], 1.0), {})]


LAYERS = implementation.load("vectorized")


def each_by_its_own_norm(grads, max_norm):
    """each gradient is clipped by its own norm, which bends the direction of the step.

    Tempting: a loop over the parameters that clips one at a time reads well.
    Seen: huggingface/transformers#581.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    return [LAYERS.clip_grad_norm([grad], max_norm)[0][0] for grad in grads], norm


def each_value_clamped(grads, max_norm):
    """each value is clamped to -max_norm..max_norm, and the norm is not looked at.

    Tempting: it is the other kind of clipping (clip_grad_value_), and it is one call.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    return [grad.clamp(-max_norm, max_norm) for grad in grads], norm


def short_gradients_scaled_up(grads, max_norm):
    """the gradients are always scaled to max_norm, so that short ones are made longer.

    Tempting: max_norm / norm is the whole formula, and early in training the norm is mostly above the limit.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    if norm == 0:
        return grads, norm
    return [(grad * (max_norm / norm)).to(grad.dtype) for grad in grads], norm


def norms_added_up(grads, max_norm):
    """the norms of the gradients are added up, instead of their squares.

    Tempting: `total += grad.norm()` in a loop; the square and the root are easily forgotten together.
    """
    norm = sum((_norm([grad]) for grad in grads), torch.zeros(()))
    return _scaled(grads, max_norm, norm)


def squares_in_half_precision(grads, max_norm):
    """the squares are summed in the gradients' own dtype: in float16 a value of 300 overflows, and all becomes zero.

    Tempting: it is the shortest line, and right in float32.
    Seen: facebookresearch/fairscale#263.
    """
    norm = sum((grad.square().sum() for grad in grads), torch.zeros(())).sqrt()
    return _scaled(grads, max_norm, norm)


def _norm(grads):
    wide = [grad.to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads]
    return sum((grad.square().sum() for grad in wide), torch.zeros(())).sqrt()


def _scaled(grads, max_norm, norm):
    scale = (max_norm / norm).clamp(max=1)
    return [(grad * scale).to(grad.dtype) for grad in grads], norm.to(grads[0].dtype if grads else norm.dtype)


def all_in_the_dtype_of_the_first(grads, max_norm):
    """every gradient is returned in the dtype of the first.

    Tempting: a model has one dtype, until its norms stay in float32.
    """
    if not grads:
        return [], torch.zeros(())
    clipped, norm = _scaled(grads, max_norm, _norm(grads))
    return [grad.to(grads[0].dtype) for grad in clipped], norm
