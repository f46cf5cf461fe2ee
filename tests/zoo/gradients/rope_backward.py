"""The bugs that people make in rope_backward."""

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous, far_positions


def _angles(positions, frequencies):
    """[1 seq half] or [batch 1 seq half], in at least float32."""
    wide = torch.promote_types(frequencies.dtype, torch.float32)
    return (positions[..., None] * frequencies.to(wide)).unsqueeze(-3)


def _wide(grad, *others):
    """All of these in the dtype of grad, but at least float32."""
    return [t.detach().to(torch.promote_types(grad.dtype, torch.float32)) for t in (grad, *others)]


def _turn_back(grad, cos, sin):
    wide, cos, sin = _wide(grad, cos, sin)
    first, second = wide.tensor_split(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1).to(grad.dtype)


def _back(grad, positions, frequencies):
    angle = _angles(positions, frequencies)
    return _turn_back(grad, angle.cos(), angle.sin())


def probes():
    few = target.tensor([1.0, 0.3])

    def make(*positions, heads=2):
        grad = torch.linspace(-1, 2, heads * len(positions) * 4).view(1, heads, -1, 4).square()
        return target.tensor(grad), target.tensor(positions), few.clone()

    def transposed(layer):
        grad, *rest = make(3, 1)
        return layer(grad.mT.contiguous().mT, *rest)

    def many(layer):
        ones = target.tensor(torch.ones(1, 2, 32770, 2))
        return layer(ones, target.tensor([1]).expand(32770), few[:1].clone())[..., -8:, :]

    def written_to(layer):
        grad, *rest = make(0, 0)
        layer(grad, *rest).zero_()
        return grad

    as_many = torch.linspace(-1, 1, 3 * 3 * 4).view(3, 1, 3, 4)
    return [
        *far_positions(),
        (make(-3, 5), {}),
        (make(3, 1, heads=9), {}),
        ((target.tensor(as_many), target.tensor([4, 5, 2]), few), {}),
        many,
        transposed,
        written_to,
    ]


def turned_onwards(grad, positions, frequencies):
    """grad is turned once more in the same direction, and not back.

    Tempting: a kernel that calls itself for its backward pass has to be told to negate the sine.
    """
    angle = _angles(positions, frequencies)
    return _turn_back(grad, angle.cos(), -angle.sin())


def not_turned(grad, positions, frequencies):
    """grad comes back as it was, as if rope had left x alone.

    Tempting: positions are added elsewhere, and the gradient of a sum passes as it is.
    """
    return grad.clone()


def partner_left_out(grad, positions, frequencies):
    """each feature gets grad times the cosine, and nothing from the other feature of its pair.

    Tempting: y[i] is x[i] times the cosine plus something else, and the derivative of the rest looks like zero.
    """
    angle = _angles(positions, frequencies)
    return _turn_back(grad, angle.cos(), torch.zeros_like(angle))


def derivative_of_the_angle(grad, positions, frequencies):
    """cosine and sine are differentiated themselves, into -sine and cosine, though the angle is a constant.

    Tempting: the derivative of a cosine is known by heart.
    """
    angle = _angles(positions, frequencies)
    return _turn_back(grad, -angle.sin(), angle.cos())


def no_minus(grad, positions, frequencies):
    """neither sine has a minus, which makes it no rotation at all.

    Tempting: forwards the first half has the minus, backwards the second; where it is taken away it has to be put back.
    """
    angle = _angles(positions, frequencies)
    wide, cos, sin = _wide(grad, angle.cos(), angle.sin())
    first, second = wide.tensor_split(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos + first * sin), dim=-1).to(grad.dtype)


def divided_by_the_cosine(grad, positions, frequencies):
    """the turn is undone by a division: the sine is as it should be, but grad is divided by the cosine.

    Tempting: to undo something is to divide by it.
    """
    angle = _angles(positions, frequencies)
    return _turn_back(grad, 1 / angle.cos(), angle.sin())


def sine_and_cosine_swapped(grad, positions, frequencies):
    """sine and cosine are swapped.

    Tempting: one function returns (sin, cos), the other takes (cos, sin).
    """
    angle = _angles(positions, frequencies)
    return _turn_back(grad, angle.sin(), angle.cos())


def first_half_overwritten(grad, positions, frequencies):
    """the second half is computed from the first half as it is after its own turn, not before.

    Tempting: writing the result over grad saves memory, and two values need a third to be exchanged.
    """
    angle, half = _angles(positions, frequencies), grad.shape[-1] // 2
    wide, cos, sin = _wide(grad, angle.cos(), angle.sin())
    back = wide.clone()
    back[..., :half] = back[..., :half] * cos + back[..., half:] * sin
    back[..., half:] = back[..., half:] * cos - back[..., :half] * sin
    return back.to(grad.dtype)


def grad_overwritten(grad, positions, frequencies):
    """the result is right, but it is written over grad.

    Tempting: it saves memory, and the caller hardly ever needs grad again.
    Seen: unslothai/unsloth#5001 (of queries and keys).
    """
    half, back = grad.shape[-1] // 2, _back(grad, positions, frequencies)
    grad[..., :half], grad[..., half:] = back[..., :half], back[..., half:]
    return grad


def grad_itself_at_position_0(grad, positions, frequencies):
    """where all positions are 0 the result is grad itself: who writes to one writes to the other.

    Tempting: nothing has to be turned.
    """
    return _back(grad, positions, frequencies) if positions.any() else grad


def neighbouring_pairs(grad, positions, frequencies):
    """the pairs are the neighbours (2i, 2i + 1), not (i, i + head_dim/2).

    Tempting: the paper and Meta's own code pair neighbours; a turn back that is copied from there keeps all norms too.
    """
    back = _back(torch.cat((grad[..., 0::2], grad[..., 1::2]), dim=-1), positions, frequencies)
    return torch.stack(back.tensor_split(2, dim=-1), dim=-1).flatten(-2)


def frequencies_of_neighbours(grad, positions, frequencies):
    """the halves are paired, but the frequencies are laid out for neighbours, as f0 f0 f1 f1 instead of f0 f1 f0 f1.

    Tempting: repeat_interleave belongs to the layout of neighbours, rotate_half to the other; both are on the web.
    """
    wide, angle = _wide(grad, _angles(positions, frequencies).repeat_interleave(2, dim=-1))
    first, second = (wide * angle.sin()).tensor_split(2, dim=-1)
    return (wide * angle.cos() + torch.cat((second, -first), dim=-1)).to(grad.dtype)


def fastest_frequency_for_all_pairs(grad, positions, frequencies):
    """all pairs are turned back by the first frequency.

    Tempting: frequencies[0] for frequencies[i] raises no error.
    """
    return _back(grad, positions, frequencies[:1].expand(frequencies.shape))


def positions_counted_from_zero(grad, positions, frequencies):
    """positions are counted 0, 1, 2 ... along the sequence, whatever is given.

    Tempting: in training that is what they are, until sequences are packed.
    """
    return _back(grad, torch.arange(grad.shape[-2], device=grad.device), frequencies)


def positions_of_the_first_sequence(grad, positions, frequencies):
    """all sequences of the batch are turned back by the positions of the first.

    Tempting: they are the same, until a batch is padded on the left or packed.
    """
    return _back(grad, positions if positions.ndim == 1 else positions[0], frequencies)


def positions_per_sequence_where_they_fit(grad, positions, frequencies):
    """positions [seq] are taken for one position per sequence where there are as many sequences as tokens.

    Tempting: decoding hands in one position for each sequence, and the two look alike.
    """
    if positions.ndim == 1 and len(positions) == len(grad):
        positions = positions[:, None]
    return _back(grad, positions, frequencies)


def batch_broadcast_over_heads(grad, positions, frequencies):
    """the angles [batch seq half] lack an axis for the heads, so that head h gets the positions of sequence h.

    Tempting: for positions [seq] no axis is needed, and where batch is 1 or n_heads nothing complains.
    """
    angle = _angles(positions, frequencies).squeeze(-3)
    return _turn_back(grad, angle.cos(), angle.sin())


def negated_positions_from_the_end_of_the_table(grad, positions, frequencies):
    """the turn back is the turn by negated positions, and these read the table of angles from its end.

    Tempting: a table with a row for each position is read by index, and Python's indexing does the rest.
    """
    if positions.numel() == 0:
        return grad.clone()
    rows = positions.abs().max() + 1
    return _back(grad, torch.where(positions > 0, positions - rows, positions), frequencies)


def negative_positions_turned_onwards(grad, positions, frequencies):
    """a negative position is turned back as if it were positive.

    Tempting: a turn back by the position without its sign looks like what "back" means.
    """
    return _back(grad, positions.abs(), frequencies)


def angle_in_the_dtype_of_grad(grad, positions, frequencies):
    """position times frequency is computed in the dtype of grad, where bfloat16 cannot count past 256.

    Tempting: forwards the angle was taken care of; what comes back has the dtype of the model throughout.
    """
    angle = (positions.to(grad.dtype)[..., None] * frequencies.to(grad.dtype)).unsqueeze(-3)
    return _turn_back(grad, angle.cos(), angle.sin())


def positions_in_the_dtype_of_grad(grad, positions, frequencies):
    """positions are rounded to the dtype of grad before they are multiplied, so that bfloat16 makes 1001 a 1000.

    Tempting: arange takes the dtype of the model, and that the product is float32 comes too late.
    """
    return _back(grad, positions.to(grad.dtype).float(), frequencies)


def frequencies_kept_in_bfloat16(grad, positions, frequencies):
    """frequencies are rounded to bfloat16, whatever grad is.

    Tempting: model.to(bfloat16) converts the buffers along with the weights.
    """
    return _back(grad, positions, frequencies.bfloat16())


def returned_in_float32(grad, positions, frequencies):
    """the result stays in float32 and does not go back to the dtype of grad.

    Tempting: the tables are float32, and a product with them is so too.
    """
    return _back(_wide(grad)[0], positions, frequencies)


def positions_in_16_bits(grad, positions, frequencies):
    """positions are kept in 16 bits, so that those from 32,768 on become negative.

    Tempting: no text was so long when it was written, and a table of small numbers stays small.
    """
    return _back(grad, positions.short().long(), frequencies)


def grad_without_its_strides(grad, positions, frequencies):
    """grad is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: it is the same kernel as forwards, and what comes in forwards is contiguous.
    """
    return _back(as_if_contiguous(grad), positions, frequencies)


def whole_groups_of_4_heads(grad, positions, frequencies):
    """the heads are turned back four at a time, and those that are left over keep grad as it was.

    Tempting: forwards has a loop for the rest, and models have 32 heads.
    """
    heads = grad.shape[1]
    if heads < 4:
        return _back(grad, positions, frequencies)
    whole = heads // 4 * 4
    return torch.cat((_back(grad[:, :whole], positions, frequencies), grad[:, whole:]), dim=1)


def rows_beyond_65535_left_out(grad, positions, frequencies):
    """of all tokens of all heads, those from the 65,536th on are not turned back.

    Tempting: each is a block of a grid, one axis of which ends at 65,535.
    """
    rows = torch.arange(grad[..., 0].numel(), device=grad.device).view(grad.shape[:-1])
    return torch.where((rows >= 65535)[..., None], grad, _back(grad, positions, frequencies))


_BY_LENGTH, _LAST = {}, []


def table_kept_by_length(grad, positions, frequencies):
    """the angles are kept by the length of the sequence, so that other positions get those of the first call.

    Tempting: the length is what a table needs to know, as long as all sequences start at 0.
    """
    key = grad.shape[-2:], grad.device
    if key not in _BY_LENGTH:
        _BY_LENGTH[key] = _angles(positions, frequencies)
    return _turn_back(grad, _BY_LENGTH[key].cos(), _BY_LENGTH[key].sin())


def table_kept_while_the_tensors_are_the_same(grad, positions, frequencies):
    """the angles are kept as long as positions and frequencies are the same objects, even if their values changed.

    Tempting: all layers of a model pass the same two tensors; but `positions += 1` keeps the object.
    """
    if not (_LAST and _LAST[0] is positions and _LAST[1] is frequencies):
        _LAST[:] = positions, frequencies, _angles(positions, frequencies)
    return _turn_back(grad, _LAST[2].cos(), _LAST[2].sin())
