"""The bugs that people make in rope."""

import torch

from llama import implementation
from tests.cases import target
from tests.zoo.kernels import as_if_contiguous, far_positions, gradients, with_gradient, within

LAYERS = implementation.load("vectorized")


def _angles(positions, frequencies):
    """[1 seq half] or [batch 1 seq half], in at least float32."""
    wide = torch.promote_types(frequencies.dtype, torch.float32)
    return (positions[..., None] * frequencies.to(wide)).unsqueeze(-3)


def _wide(x, *others):
    """All of these in the dtype of x, but at least float32."""
    return [t.to(torch.promote_types(x.dtype, torch.float32)) for t in (x, *others)]


def _turn(x, cos, sin):
    wide, cos, sin = _wide(x, cos, sin)
    first, second = wide.tensor_split(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def neighbouring_pairs(x, positions, frequencies):
    """the pairs are the neighbours (2i, 2i + 1), not (i, i + head_dim/2).

    Tempting: the paper and Meta's own code pair neighbours; Hugging Face reorders the rows of w_q and w_k for halves.
    Seen: NeuraLegion/shainet#111.
    """
    y = LAYERS.rope(torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1), positions, frequencies)
    return torch.stack(y.chunk(2, dim=-1), dim=-1).flatten(-2)


def neighbours_in_halves_out(x, positions, frequencies):
    """the pairs are read as the neighbours (2i, 2i + 1) and written back as the halves (i, i + head_dim/2).

    Tempting: strided slices at the top, a cat at the bottom. Queries and keys are reordered alike, so it even trains.
    """
    return LAYERS.rope(torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1), positions, frequencies)


def frequencies_of_neighbours(x, positions, frequencies):
    """the halves are paired, but the frequencies are laid out for neighbours, as f0 f0 f1 f1 instead of f0 f1 f0 f1.

    Tempting: repeat_interleave belongs to the layout of neighbours, rotate_half to the other; both are on the web.
    Seen: raiyanyahya/how-to-train-your-gpt#6.
    """
    wide, angle = _wide(x, _angles(positions, frequencies).repeat_interleave(2, dim=-1))
    first, second = wide.chunk(2, dim=-1)
    return (wide * angle.cos() + torch.cat((-second, first), dim=-1) * angle.sin()).to(x.dtype)


def frequencies_of_halves(x, positions, frequencies):
    """the neighbours are paired, and the frequencies are laid out for halves, as f0 f1 f0 f1.

    Tempting: the rotation is taken from one implementation and the table from another.
    Seen: xiangking/ark-nlp#47.
    """
    angle = _angles(positions, frequencies)
    wide, angle = _wide(x, torch.cat((angle, angle), dim=-1))
    swapped = torch.stack((-wide[..., 1::2], wide[..., 0::2]), dim=-1).flatten(-2)
    return (wide * angle.cos() + swapped * angle.sin()).to(x.dtype)


def clockwise(x, positions, frequencies):
    """the turn is clockwise: the minus stands at the sine of the second half.

    Tempting: queries and keys still only see their distance; and a row vector times the rotation matrix does just this.
    Seen: karpathy/nanochat#489.
    """
    angle = _angles(positions, frequencies)
    return _turn(x, angle.cos(), -angle.sin())


def sine_not_negated(x, positions, frequencies):
    """the second half is not negated before it goes to the first, which makes it no rotation at all.

    Tempting: rotate_half with a cat of (second, first) looks complete.
    """
    angle = _angles(positions, frequencies)
    wide, cos, sin = _wide(x, angle.cos(), angle.sin())
    first, second = wide.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def halves_not_exchanged(x, positions, frequencies):
    """the first half is negated but stays where it is, so that the two halves are not exchanged before the sine.

    Tempting: rotate_half with a cat of (-first, second): the sign is there and the shape is right.
    """
    angle = _angles(positions, frequencies)
    wide, cos, sin = _wide(x, angle.cos(), angle.sin())
    first, second = wide.chunk(2, dim=-1)
    return torch.cat((first * cos - first * sin, second * cos + second * sin), dim=-1).to(x.dtype)


def first_half_overwritten(x, positions, frequencies):
    """the second half is computed from the first half as it is after its own turn, not before.

    Tempting: writing the result over the input saves memory, and two values need a third to be exchanged.
    """
    angle, half = _angles(positions, frequencies), x.shape[-1] // 2
    y, cos, sin = _wide(x, angle.cos(), angle.sin())
    y = y.clone()
    y[..., :half] = y[..., :half] * cos - y[..., half:] * sin
    y[..., half:] = y[..., :half] * sin + y[..., half:] * cos
    return y.to(x.dtype)


def x_overwritten(x, positions, frequencies):
    """the result is right, but it is written over x.

    Tempting: it saves memory, and the caller hardly ever needs x again.
    """
    half = x.shape[-1] // 2
    y = LAYERS.rope(x, positions, frequencies)
    x[..., :half], x[..., half:] = y[..., :half], y[..., half:]
    return x


@torch.no_grad()
def gradient_stopped(x, positions, frequencies):
    """the result is right, but no gradient comes through, since x is turned under no_grad.

    Tempting: the table needs no gradient, and one decorator for all is shorter than a block around the table.
    """
    return LAYERS.rope(x, positions, frequencies)


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient):
        return _turn(gradient, *ctx.saved_tensors), None, None


def gradient_turned_forwards(x, positions, frequencies):
    """the result is right, but its gradient is turned onwards instead of back.

    Tempting: a kernel that calls itself for its backward pass has to be told to negate the sine.
    """
    angle = _angles(positions, frequencies)
    return _Turn.apply(x, angle.cos(), angle.sin())


def sine_and_cosine_swapped(x, positions, frequencies):
    """sine and cosine are swapped.

    Tempting: one function returns (sin, cos), the other takes (cos, sin).
    """
    angle = _angles(positions, frequencies)
    return _turn(x, angle.sin(), angle.cos())


def half_of_each_head(x, positions, frequencies):
    """only the first half of each head's features is turned, and the rest is left as it is.

    Tempting: partial rotation is right for GPT-NeoX and Phi, and where a paper says "half" it reads like this.
    """
    rotary = x.shape[-1] // 4 * 2
    angle = _angles(positions, frequencies)[..., : rotary // 2]
    return torch.cat((_turn(x[..., :rotary], angle.cos(), angle.sin()), x[..., rotary:]), dim=-1)


def positions_counted_from_zero(x, positions, frequencies):
    """positions are counted 0, 1, 2 ... along the sequence, whatever is given.

    Tempting: in training that is what they are; with a cache the newest token then always stands at 0.
    Seen: keras-team/keras-hub#1544.
    """
    return LAYERS.rope(x, torch.arange(x.shape[-2], device=x.device), frequencies)


def positions_counted_from_the_first(x, positions, frequencies):
    """positions are counted upwards from the first one of each sequence, whatever the others are.

    Tempting: with a cache an offset is all one needs, until a batch is padded or packed.
    """
    return LAYERS.rope(x, positions[..., :1] + torch.arange(x.shape[-2], device=x.device), frequencies)


def positions_counted_from_one(x, positions, frequencies):
    """every position is one too far, as if they were counted from 1.

    Tempting: the paper counts from 1, and only distances matter.
    """
    return LAYERS.rope(x, positions + 1, frequencies)


def positions_doubled(x, positions, frequencies):
    """every position is counted twice as far as it is.

    Tempting: a factor for stretched contexts that is 2 where nothing was to be stretched.
    Seen: ml-explore/mlx-lm#1545.
    """
    return LAYERS.rope(x, 2 * positions, frequencies)


def positions_counted_along_the_heads(x, positions, frequencies):
    """positions are counted along the heads, so that head h is turned as if it were position h.

    Tempting: before the transpose the sequence is one axis, after it the other, and shape[1] is always there.
    Seen: facebookresearch/xformers#841.
    """
    angle = _angles(torch.arange(x.shape[1], device=x.device), frequencies).transpose(-3, -2)
    return _turn(x, angle.cos(), angle.sin())


def positions_of_the_first_sequence(x, positions, frequencies):
    """all sequences of the batch are turned by the positions of the first.

    Tempting: they are the same in training; in a left-padded batch they are not.
    Seen: unslothai/unsloth#3803.
    """
    return LAYERS.rope(x, positions if positions.ndim == 1 else positions[0], frequencies)


def batch_broadcast_over_heads(x, positions, frequencies):
    """the angles [batch seq half] lack an axis for the heads, so that head h gets the positions of sequence h.

    Tempting: for positions [seq] no axis is needed, and where batch is 1 or n_heads nothing complains.
    """
    angle = _angles(positions, frequencies).squeeze(-3)
    return _turn(x, angle.cos(), angle.sin())


def angle_in_the_dtype_of_x(x, positions, frequencies):
    """position times frequency is computed in the dtype of x, where bfloat16 cannot count past 256.

    Tempting: one dtype for everything; in float32 it is right, and the first positions are right in any.
    Seen: EleutherAI/gpt-neox#1003.
    """
    angle = (positions.to(x.dtype)[..., None] * frequencies.to(x.dtype)).unsqueeze(-3)
    return _turn(x, angle.cos(), angle.sin())


def positions_in_the_dtype_of_x(x, positions, frequencies):
    """positions are rounded to the dtype of x before they are multiplied, so that bfloat16 makes 1001 a 1000.

    Tempting: arange takes the dtype of the model, and that the product is float32 comes too late.
    Seen: keras-team/keras-hub#1494.
    """
    angle = _angles(positions.to(x.dtype).float(), frequencies)
    return _turn(x, angle.cos(), angle.sin())


def frequencies_in_the_dtype_of_x(x, positions, frequencies):
    """frequencies are rounded to the dtype of x before they are multiplied by the position.

    Tempting: a cast of all constants to the model's dtype, with the product in float32 again.
    Seen: sgl-project/sglang-jax#1472.
    """
    return LAYERS.rope(x, positions, frequencies.to(x.dtype))


def frequencies_kept_in_bfloat16(x, positions, frequencies):
    """frequencies are rounded to bfloat16, whatever x is.

    Tempting: model.to(bfloat16) converts the buffers along with the weights.
    Seen: NVIDIA/Megatron-LM#744.
    """
    return LAYERS.rope(x, positions, frequencies.bfloat16())


def returned_in_float32(x, positions, frequencies):
    """the result stays in float32 and does not go back to the dtype of x.

    Tempting: the tables are float32, and a product with them is so too.
    Seen: huggingface/transformers#24262.
    """
    return LAYERS.rope(*_wide(x), positions, frequencies)


def theta_always_10000(x, positions, frequencies):
    """the given frequencies are ignored, and those of theta = 10000 are used.

    Tempting: rope can make its own from head_dim; Llama 3 has another theta.
    Seen: lyogavin/airllm#368.
    """
    return LAYERS.rope(x, positions, LAYERS.rope_frequencies(x.shape[-1]).to(frequencies))


def table_of_2048_positions(x, positions, frequencies):
    """positions beyond 2047 are turned by the angle of position 2047.

    Tempting: a table as long as the training context, in a library that clips an index instead of refusing it.
    """
    return LAYERS.rope(x, positions.clamp(max=2047), frequencies)


def table_kept_by_length(x, positions, frequencies):
    """the angles are kept by the length of the sequence, so that other positions get those of the first call.

    Tempting: the length is what a table needs to know, as long as all sequences start at 0.
    Seen: lucidrains/rotary-embedding-torch#11.
    """
    key = x.shape[-2:]
    if key not in _BY_LENGTH:
        _BY_LENGTH[key] = _angles(positions, frequencies)
    return _turn(x, _BY_LENGTH[key].cos(), _BY_LENGTH[key].sin())


def table_kept_for_other_frequencies(x, positions, frequencies):
    """the table of angles is made anew only where it is too short, so that other frequencies get the old ones.

    Tempting: a model has one theta, and only the length of the sequence changes from call to call.
    """
    half, needed = x.shape[-1] // 2, int(positions.max()) + 1 if positions.numel() else 0
    if half not in _TABLES or len(_TABLES[half]) < needed:
        _TABLES[half] = _angles(torch.arange(needed, device=x.device), frequencies)[0]
    angle = _TABLES[half][positions].unsqueeze(-3)
    return _turn(x, angle.cos(), angle.sin())


def table_kept_while_the_tensors_are_the_same(x, positions, frequencies):
    """the angles are kept as long as positions and frequencies are the same objects, even if their values changed.

    Tempting: all layers of a model pass the same two tensors; but `positions += 1` keeps the object.
    """
    if not (_LAST and _LAST[0] is positions and _LAST[1] is frequencies):
        _LAST[:] = positions, frequencies, _angles(positions, frequencies)
    return _turn(x, _LAST[2].cos(), _LAST[2].sin())


_BY_LENGTH, _TABLES, _LAST = {}, {}, []


def probes():
    def as_many_positions_as_sequences(layer):
        x = target.tensor(torch.linspace(-1, 1, 3 * 3 * 14).reshape(3, 1, 3, 14))
        return layer(x, target.tensor([4, 5, 2]), target.tensor([1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01]))

    def between_the_same_ends(layer):
        x, frequencies = target.tensor(torch.ones(1, 1, 4, 2)), target.tensor([0.625])
        return [layer(x, target.tensor(at), frequencies) for at in ([0, 1, 2, 3], [0, 2, 1, 3])]

    few = target.tensor([1.0, 0.3])

    def make(*positions, dtype=torch.float32, heads=2):
        x = torch.linspace(-1, 2, heads * len(positions) * 4).view(1, heads, -1, 4).square()
        return [target.tensor(x, dtype), target.tensor(positions), few.clone()]

    def one_after_the_other(*calls):
        def probe(layer):
            results = []
            for mode, arguments in calls:
                with mode():
                    results.append(layer(*(t.clone() for t in arguments)).detach().clone())
            return results

        return probe

    def autocast():
        return torch.autocast(target.DEVICE.type, torch.bfloat16)

    def learning(layer):
        with torch.inference_mode():
            layer(*make(40, 41))
        x, *rest = make(40, 41)
        return torch.autograd.grad((layer(x.requires_grad_(), *rest) * x.detach()).sum(), x)

    def transposed_positions(layer):
        at = target.tensor([[1, 2, 3], [4, 5, 6]])
        x = target.tensor(torch.linspace(0, 1, 3 * 2 * 4).view(3, 1, 2, 4))
        return layer(x, at.mT, few.clone())

    def written_to(layer):
        x, *rest = make(0, 0)
        layer(x, *rest).zero_()
        return x

    x, *rest = make(3, 1)
    plain = torch.enable_grad
    return [
        *far_positions(),
        as_many_positions_as_sequences,
        between_the_same_ends,
        one_after_the_other((plain, make(7, 8)), (plain, make(70, 80))),
        one_after_the_other((plain, make(7, 9, dtype=torch.bfloat16)), (plain, make(7, 9))),
        (tuple(make(-3, 5)), {}),
        lambda layer: layer(
            target.tensor(torch.ones(1, 2, 32770, 2)), target.tensor([1]).expand(32770), few[:1].clone()
        )[..., -8:, :],
        transposed_positions,
        written_to,
        lambda layer: layer(
            x.expand(2, 2, 2, 4).transpose(0, 1).contiguous().transpose(0, 1), *(t.clone() for t in rest)
        ),
        learning,
        within(autocast, lambda: make(301, 77)),
        gradients(lambda: make(3, 1), transposed=True),
        gradients(lambda: make(3, 1, heads=9)),
    ]


def positions_per_sequence_where_they_fit(x, positions, frequencies):
    """positions [seq] are taken for one position per sequence where there are as many sequences as tokens.

    Tempting: decoding hands in one position for each sequence, and the two look alike.
    """
    if positions.ndim == 1 and len(positions) == len(x):
        positions = positions[:, None]
    angles = _angles(positions, frequencies)
    return _turn(x, angles.cos(), angles.sin())


_BY_ENDS = {}


def table_kept_by_its_ends(x, positions, frequencies):
    """a table is kept by the first and the last of its positions, and given for others between the same ends.

    Tempting: positions count upwards, so the ends seem to say them all.
    """
    if positions.numel() == 0:
        return x.clone()
    ends = positions.flatten()[0].item(), positions.flatten()[-1].item()
    key = (*positions.shape, *ends, *frequencies.tolist(), x.device)
    if key not in _BY_ENDS:
        _BY_ENDS[key] = _angles(positions, frequencies)
    return _turn(x, _BY_ENDS[key].cos(), _BY_ENDS[key].sin())


def angle_as_a_matrix_product(x, positions, frequencies):
    """the angles are an outer product taken as a product of matrices, which autocast does in bfloat16.

    Tempting: `inv_freq @ positions` reads like the paper, and outside of autocast the casts to float32 hold.
    Seen: huggingface/diffusers#13920.
    """
    wide = torch.promote_types(frequencies.dtype, torch.float32)
    angle = (positions.to(wide)[..., None] @ frequencies.to(wide)[None]).unsqueeze(-3)
    return _turn(x, angle.cos(), angle.sin())


_TURNS, _FIRST, _INFERRED = {}, {}, {}


def table_in_the_dtype_of_the_first_call(x, positions, frequencies):
    """sine and cosine are kept by position and frequency in the dtype of the first x, and float32 gets bfloat16's.

    Tempting: a table has the dtype of its model, and a program has one model, until it compares two.
    """
    key = str(positions.tolist()), str(frequencies.tolist()), x.device
    if key not in _TURNS:
        angle = _angles(positions, frequencies)
        _TURNS[key] = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return _turn(x, *_TURNS[key])


def table_as_long_as_the_first_sequence(x, positions, frequencies):
    """the table ends at the largest position of the first call, and positions beyond are turned as that one.

    Tempting: a prompt comes first, and shows how long texts are.
    """
    key = (*frequencies.tolist(), x.device)
    last = _FIRST.setdefault(key, positions.abs().max() if positions.numel() else torch.tensor(0))
    return LAYERS.rope(x, positions.clamp(min=-last, max=last), frequencies)


def table_made_under_inference_mode(x, positions, frequencies):
    """sine and cosine are kept from a call under inference_mode, after which no gradient can be had any more.

    Tempting: evaluating once before training is usual; tensors made there may not be saved for backward.
    Seen: Dao-AILab/flash-attention#299.
    """
    key = str(positions.tolist()), str(frequencies.tolist()), x.device
    if key not in _INFERRED:
        angle = _angles(positions, frequencies)
        _INFERRED[key] = angle.cos(), angle.sin()
    return _turn(x, *_INFERRED[key])


def negative_positions_from_the_end_of_the_table(x, positions, frequencies):
    """a negative position reads the table from its end.

    Tempting: a table with a row for each position is read by index, and Python's indexing does the rest.
    """
    if positions.numel() == 0:
        return x.clone()
    rows = positions.abs().max() + 1
    return LAYERS.rope(x, torch.where(positions < 0, rows + positions, positions), frequencies)


def positions_in_16_bits(x, positions, frequencies):
    """positions are kept in 16 bits, so that those from 32,768 on become negative.

    Tempting: no text was so long when it was written, and a table of small numbers stays small.
    """
    return LAYERS.rope(x, positions.short().long(), frequencies)


def strides_ignored(x, positions, frequencies):
    """x is read in the order of its memory, which is another where heads and tokens are transposed, as they mostly are.

    Tempting: in the first version of a model the transposed queries were made contiguous.
    """
    return LAYERS.rope(as_if_contiguous(x), positions, frequencies)


def strides_of_the_positions_ignored(x, positions, frequencies):
    """positions [batch seq] are read in the order of their memory, which is another where they are expanded or a slice.

    Tempting: a small tensor of whole numbers hardly comes from anywhere but arange.
    """
    return LAYERS.rope(x, as_if_contiguous(positions), frequencies)


def upstream_taken_for_contiguous(x, positions, frequencies):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: it is the same kernel as forwards, and what comes in forwards is contiguous.
    """
    return with_gradient(LAYERS.rope(x, positions, frequencies), as_if_contiguous)


def rows_beyond_65535_left_out(x, positions, frequencies):
    """of all tokens of all heads, those from the 65,536th on are never turned.

    Tempting: each is a block of a grid, one axis of which ends at 65,535.
    """
    rows = torch.arange(x[..., 0].numel(), device=x.device).view(x.shape[:-1])
    return torch.where((rows >= 65535)[..., None], x, LAYERS.rope(x, positions, frequencies))


def gradient_for_whole_groups_of_4_heads(x, positions, frequencies):
    """backwards the heads are turned four at a time, and those that are left over get the gradient unturned.

    Tempting: forwards has a loop for the rest, and models have 32 heads.
    """
    y, heads = LAYERS.rope(x, positions, frequencies), x.shape[1]
    if heads < 4:
        return y
    whole = heads // 4 * 4
    unturned = y[:, whole:].detach() + (x - x.detach())[:, whole:]
    return torch.cat((y[:, :whole], unturned), dim=1)


def x_itself_at_position_0(x, positions, frequencies):
    """where all positions are 0 the result is x itself: who writes to one writes to the other.

    Tempting: nothing has to be turned.
    """
    return LAYERS.rope(x, positions, frequencies) if positions.any() else x


def halves_in_neighbours_out(x, positions, frequencies):
    """the pairs are read as the halves (i, i + head_dim/2) and written back as the neighbours (2i, 2i + 1).

    Tempting: chunk at the top, stack and flatten at the bottom, each from another program.
    """
    return torch.stack(LAYERS.rope(x, positions, frequencies).chunk(2, dim=-1), dim=-1).flatten(-2)


def angles_taken_for_degrees(x, positions, frequencies):
    """the angles are taken for degrees and turned into radians once more.

    Tempting: angles of people are in degrees; math.radians is at hand.
    """
    angle = _angles(positions, frequencies).deg2rad()
    return _turn(x, angle.cos(), angle.sin())


def divided_by_the_frequency(x, positions, frequencies):
    """the angle is the position divided by the frequency, and not multiplied by it.

    Tempting: many texts write the angle as position / theta^(2i/head_dim), and the frequencies have divided already.
    """
    wide = frequencies.to(torch.promote_types(frequencies.dtype, torch.float32))
    angle = (positions[..., None] / wide).unsqueeze(-3)
    return _turn(x, angle.cos(), angle.sin())


def fastest_frequency_for_all_pairs(x, positions, frequencies):
    """all pairs turn by the first frequency.

    Tempting: frequencies[0] for frequencies[i] raises no error.
    """
    return LAYERS.rope(x, positions, frequencies[:1].expand(frequencies.shape))


def second_half_left_as_it_was(x, positions, frequencies):
    """the first half is turned, but the second half stays as it was.

    Tempting: the formula has two lines, and the second looks like the first.
    """
    half = x.shape[-1] // 2
    return torch.cat((LAYERS.rope(x, positions, frequencies)[..., :half], x[..., half:]), dim=-1)


def cosine_forgotten(x, positions, frequencies):
    """x itself is added to the exchanged halves times the sine: the cosine is missing.

    Tempting: for small angles the cosine is nearly 1.
    """
    angle = _angles(positions, frequencies)
    return _turn(x, torch.ones_like(angle), angle.sin())


def added_and_not_turned(x, positions, frequencies):
    """sine and cosine of the angles are added to x, as in the first Transformer, and nothing is turned.

    Tempting: position embeddings are added wherever else they occur.
    """
    angle = _angles(positions, frequencies)
    wide, waves = _wide(x, torch.cat((angle.sin(), angle.cos()), dim=-1))
    return (wide + waves).to(x.dtype)
