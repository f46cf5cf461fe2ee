"""The bugs that people make in clip_grad_norm."""

import torch

from llama import implementation
from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def probes():
    short, large = target.tensor([0.03, -0.04]), target.tensor([300.0, 400.0]).half()
    long, huge = target.tensor(torch.ones(65545)), target.tensor([1e30, 1e30])

    def rows_apart(clip):
        wide = target.tensor(torch.arange(12.0).view(3, 4))
        return clip([wide[:, :2]], 1.0)

    def twice(clip):
        grad = target.tensor([3.0, 4.0])
        return clip([grad, grad], 1.0)

    return [
        (([short, 2 * short], 1.0), {}),
        (([large], 1.0), {}),
        (([short.half(), short], 1.0), {}),
        (([long], 1.0), {}),
        (([huge], 1.0), {}),
        (([short], 1e-6), {}),
        (([target.tensor([1.0]).bfloat16()] * 900, 1.0), {}),
        (([short * 50, short[:0], short * 70], 1.0), {}),
        rows_apart,
        twice,
    ]


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


def infinite_norm_left_alone(grads, max_norm):
    """where the norm is infinite the gradients stay as they are, though it is above every limit.

    Tempting: nothing sensible comes of infinity; but float32 gradients of 1e20 have an infinite norm already.
    Seen: ooples/AiDotNet#1299.
    """
    clipped, norm = LAYERS.clip_grad_norm(grads, max_norm)
    return ([grad.clone() for grad in grads] if torch.isinf(norm) else clipped), norm


def norm_of_the_first_65536_elements(grads, max_norm):
    """only the first 65,536 elements of each gradient count in the norm.

    Tempting: tensors are taken in chunks of 65,536, and a loop over the chunks of one tensor is missing.
    """
    return _scaled(grads, max_norm, _norm([grad.reshape(-1)[:65536] for grad in grads]))


def millionth_added_to_the_norm(grads, max_norm):
    """1e-6 is added to the norm before the limit is divided by it, so that small gradients are clipped too far.

    Tempting: it guards against a division by zero, and torch does it; but a limit can be as small as that.
    """
    norm = _norm(grads)
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-6), torch.ones_like(norm))
    return [(grad * scale).to(grad.dtype) for grad in grads], norm.to(grads[0].dtype if grads else norm.dtype)


def squares_added_up_in_half_precision(grads, max_norm):
    """the squares of one gradient are added in float32, but those of all gradients in their dtype.

    Tempting: one number for each tensor seems harmless; in bfloat16 a sum of hundreds stops growing.
    """
    if not grads:
        return [], torch.zeros(())
    total = torch.zeros((), dtype=grads[0].dtype, device=grads[0].device)
    for grad in grads:
        total = (total + _norm([grad]).square()).to(grads[0].dtype)
    return _scaled(grads, max_norm, total.to(torch.promote_types(total.dtype, torch.float32)).sqrt())


def same_tensor_counted_once(grads, max_norm):
    """a tensor that stands in the list twice counts once.

    Tempting: tied weights share their gradient, and a set of the tensors seems to be meant.
    """
    return _scaled(grads, max_norm, _norm(list({id(grad): grad for grad in grads}.values())))


def norm_of_the_memory(grads, max_norm):
    """the norm is taken over elements in the order of the memory, which are others where a gradient is a slice.

    Tempting: a norm does not depend on the order, so that a pointer and a count seem to be enough.
    """
    return _scaled(grads, max_norm, _norm([as_if_contiguous(grad) for grad in grads]))


def stops_at_an_empty_gradient(grads, max_norm):
    """gradients after an empty one do not count in the norm.

    Tempting: the list of what has to be read ends where a length is zero.
    Seen: NVIDIA/TransformerEngine#3202 (an empty tensor disturbs those after it).
    """
    counted = []
    for grad in grads:
        if grad.numel() == 0:
            break
        counted.append(grad)
    return _scaled(grads, max_norm, _norm(counted))


def root_of_the_norm_forgotten(grads, max_norm):
    """the sum of the squares is taken for the norm: the root is missing.

    Tempting: the squares are what is added up, and for a norm of 1 it is right.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    scale = min(1.0, max_norm / float(norm) ** 2) if norm else 1.0
    return [(grad * scale).to(grad.dtype) for grad in grads], norm**2


def norm_after_clipping(grads, max_norm):
    """the norm that is returned is the one after clipping.

    Tempting: it is what the step is taken with.
    """
    clipped, norm = LAYERS.clip_grad_norm(grads, max_norm)
    return clipped, norm.clamp(max=max_norm)


def largest_element_for_the_norm(grads, max_norm):
    """the largest magnitude of any element is taken for the norm.

    Tempting: it is the maximum norm, and "no gradient larger than a limit" sounds like it.
    """
    return _clipped(grads, max_norm, _every_element(grads).abs().max)


def magnitudes_added_up(grads, max_norm):
    """the magnitudes of all elements are added up, without squares and root.

    Tempting: abs().sum() is a norm too.
    """
    return _clipped(grads, max_norm, _every_element(grads).abs().sum)


def root_of_the_mean_square(grads, max_norm):
    """the squares are averaged over all elements, and not added up.

    Tempting: RMSNorm does so, and the number then does not depend on the size of the model.
    """
    return _clipped(grads, max_norm, lambda: _every_element(grads).square().mean().sqrt())


def norm_of_the_last_gradient(grads, max_norm):
    """the norm is that of the last gradient alone, though all are scaled by it.

    Tempting: norm = ... in a loop where it should be +=.
    """
    return _clipped(grads, max_norm, lambda: _norm(grads[-1:]))


def scale_upside_down(grads, max_norm):
    """gradients that are too long are multiplied by norm / max_norm, which makes them longer still.

    Tempting: a fraction is easily turned over.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    scale = (norm / max_norm).clamp(min=1)
    return [(grad * scale).to(grad.dtype) for grad in grads], norm


def short_ones_scaled_up_and_long_ones_left(grads, max_norm):
    """the gradients are scaled where the norm is below max_norm, and left as they are where it is above.

    Tempting: a comparison is easily turned around.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    scale = max_norm / norm if 0 < norm < max_norm else 1.0
    return [(grad * scale).to(grad.dtype) for grad in grads], norm


def shortened_to_length_one(grads, max_norm):
    """gradients that are too long are divided by the norm alone, so that their length is 1 and not max_norm.

    Tempting: max_norm is nearly always 1.
    """
    _, norm = LAYERS.clip_grad_norm(grads, max_norm)
    scale = 1 / norm if norm > max_norm else 1.0
    return [(grad * scale).to(grad.dtype) for grad in grads], norm


def scaled_in_place(grads, max_norm):
    """the result is right, but it is written over the gradients that were given.

    Tempting: torch's own clip_grad_norm_ does just this; its name ends in an underscore.
    """
    clipped, norm = LAYERS.clip_grad_norm(grads, max_norm)
    for grad, new in zip(grads, clipped, strict=True):
        grad.detach().copy_(new)
    return grads, norm


def _every_element(grads):
    """All elements in one row, in at least float32."""
    return torch.cat([grad.detach().flatten().to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads])


def _clipped(grads, max_norm, norm):
    """Clipped by what `norm` returns."""
    if not grads:
        return [], torch.zeros(())
    length = norm()
    scale = (max_norm / length).clamp(max=1)
    return [(grad * scale).to(grad.dtype) for grad in grads], length
