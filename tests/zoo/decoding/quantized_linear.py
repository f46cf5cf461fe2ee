"""The bugs that people make in quantized_linear."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    def case(tokens, d_in, n_groups, dtype=torch.float32, d_out=4, scale=1.0):
        x = target.tensor((torch.arange(tokens * d_in) * 0.37).sin().view(tokens, d_in), dtype)
        codes = target.tensor(((torch.arange(d_out * d_in) * 0.61).sin() * 127).view(d_out, d_in).to(torch.int8))
        scales = target.tensor(scale * (1 + (torch.arange(d_out * n_groups) * 0.83).sin().view(d_out, n_groups) / 2))
        return x, codes, scales

    def probe(*args, change=lambda *given: given, **more):
        return lambda layer: layer(*change(*case(*args, **more)))

    def of_two(x, codes, scales, dtype):
        def ask(layer):
            return layer(
                target.tensor([x], dtype), target.tensor([codes], torch.int8), target.tensor([scales], torch.float32)
            )

        return ask

    def first_columns(x, codes, scales):
        # A gap in memory behind each row of one of them at a time.
        return [
            (x, codes, scales[:, :2]),
            (x[:, :8], codes[:, :8].contiguous(), scales),
            (x[:, :8].contiguous(), codes[:, :8], scales),
        ]

    def apart(which):
        return lambda layer: layer(*first_columns(*case(3, 16, 4))[which])

    def zero_scale(x, codes, scales):
        return x, codes, scales.index_fill(1, torch.tensor([1], device=scales.device), 0.0)

    def results_kept(layer):
        x, codes, scales = case(3, 8, 2)
        first = layer(x, codes, scales)
        return [layer(-x, codes, scales), first]

    def many_rows(layer):
        x, codes, scales = case(1, 2, 1)
        return layer(x, codes[:1].repeat(65540, 1), scales[:1].repeat(65540, 1))[..., 65533:]

    def changed(x, codes, scales):
        codes.neg_()

    def scales_changed(x, codes, scales):
        scales.mul_(2)

    halves = torch.bfloat16, torch.float16
    return [
        probe(1, 128, 2),
        probe(2, 128, 2),
        probe(2, 96, 2),
        *[probe(tokens, d_in, 1) for tokens in (1, 3) for d_in in (33, 48, 64, 256)],
        probe(3, 16, 4, change=zero_scale),
        probe(3, 16, 4, scale=1e-6),
        *[probe(3, 8192, n_groups, dtype) for dtype in halves for n_groups in (1, 64)],
        *[probe(3, 64, 4, dtype, scale=2000.0, change=lambda x, c, s: (x, c, s / 2**12)) for dtype in halves],
        probe(3, 16, 4, torch.float64, scale=1 / 3, change=lambda x, codes, s: (x / 3, codes, s)),
        probe(3, 4, 4),
        *map(apart, range(3)),
        results_kept,
        many_rows,
        again(lambda: case(3, 8, 2), changed),
        again(lambda: case(3, 8, 2), scales_changed),
        # What cancels, so that only what is rounded is left.
        *[of_two([128.0] * 2, [100, -100], [1.0001, 1.0], dtype) for dtype in halves],
        of_two([64.0] * 2, [101, -102], [1.0087890625, 1.0], torch.float16),
        of_two([600.0] * 2, [127, -126], [1.0], torch.float16),
        of_two([600.0] * 2, [127, 1], [2**-7], torch.float16),
    ]


def _wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _weight(x, codes, scales):
    """What the codes stand for, in at least float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return codes.to(wide) * _of_each_input(codes, scales).to(wide)


def _of_each_input(codes, scales):
    return scales.repeat_interleave(codes.shape[1] // scales.shape[1], dim=1)


def _right(x, codes, scales):
    return (_wide(x) @ _weight(x, codes, scales).T).to(x.dtype)


def scales_forgotten(x, codes, scales):
    """x is multiplied by the codes, and the scales are left out.

    Tempting: the codes look like the weight, and only the size of the result is wrong.
    """
    return _right(x, codes, torch.ones_like(scales))


def divided_by_the_scales(x, codes, scales):
    """the codes are divided by the scales, and not multiplied.

    Tempting: a weight is divided by its scale on the way in, and half of the libraries keep the reciprocal.
    """
    return _right(x, codes, 1 / scales)


def first_scale_for_all_runs(x, codes, scales):
    """all inputs of an output have the scale of its first run.

    Tempting: with one scale for each output the sum is scaled at the end, and that kernel is there already.
    Seen: ooples/AiDotNet.Tensors#208 (found in review).
    """
    return _right(x, codes, scales[:, :1])


def first_scale_for_a_single_token(x, codes, scales):
    """for a single token, and runs of more than 32 inputs, all have the scale of the first run.

    Tempting: 32 inputs are computed at a time, and number · (32 // group) is 0 where number · 32 // group was meant.
    Seen: intel/torch-xpu-ops#5001.
    """
    single = x.numel() == x.shape[-1] and codes.shape[1] // scales.shape[1] > 32
    return _right(x, codes, scales[:, :1] if single else scales)


def one_scale_for_each_32(x, codes, scales):
    """runs of more than 32 inputs are computed 32 at a time, all with the scale of the first of them.

    Tempting: one scale is loaded for a block, and the runs of published models are multiples of one.
    """
    d_in = codes.shape[1]
    group = d_in // scales.shape[1]
    if group <= 32:
        return _right(x, codes, scales)
    return _right(x, codes, scales[:, torch.arange(d_in, device=codes.device) // 32 * 32 // group])


def runs_that_take_turns(x, codes, scales):
    """input i has the scale i % n_groups, as if the runs took turns.

    Tempting: repeat is shorter than repeat_interleave.
    """
    return _right(x, codes, scales.repeat(1, codes.shape[1] // scales.shape[1]))


def scales_of_the_first_output(x, codes, scales):
    """all outputs have the scales of the first one.

    Tempting: a row of scales is broadcast over the outputs without an error.
    """
    return _right(x, codes, scales[:1].expand_as(scales))


def scales_read_as_transposed(x, codes, scales):
    """the scales are read as if they lay in memory as [n_groups d_out].

    Tempting: many kernels want them so; then they must be transposed first, not only called so.
    Seen: InternLM/lmdeploy#3915, uxlfoundation/oneDNN#5908.
    """
    return _right(x, codes, scales.reshape(scales.shape[1], scales.shape[0]).T)


def codes_read_as_transposed(x, codes, scales):
    """square codes are used as [d_in d_out].

    Tempting: kernels that read columns keep the codes so, and a square shape does not tell.
    """
    return _right(x, codes.T if codes.shape[0] == codes.shape[1] else codes, scales)


def codes_unsigned(x, codes, scales):
    """the codes are read as unsigned bytes, so that -1 is 255.

    Tempting: a byte is a byte; the sign has to be extended where it is unpacked.
    Seen: tile-ai/tilelang#2482.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    weight = (codes.int() & 255).to(wide) * _of_each_input(codes, scales).to(wide)
    return (_wide(x) @ weight.T).to(x.dtype)


def codes_one_too_high(x, codes, scales):
    """each code is taken for one more than it is.

    Tempting: codes that are stored with an offset have 8 or 128 taken off, and 7 or 127 looks like it too.
    Seen: tile-ai/tilelang#2477.
    """
    return _with_codes(x, codes.int() + 1, scales)


def borrowed_from_the_next_code(x, codes, scales):
    """a code is one too low where the code before it is negative, in each four that follow each other.

    Tempting: four bytes are one register, and one subtraction serves all; but it borrows from byte to byte.
    Seen: gittensor-ai-lab/sparkinfer#761.
    """
    borrows = torch.nn.functional.pad(codes[:, :-1] < 0, (1, 0)).int()
    borrows[:, ::4] = 0
    return _with_codes(x, codes.int() - borrows, scales)


def low_four_bits(x, codes, scales):
    """only the low four bits of a code are read, so that it lies within -8 and 7.

    Tempting: a kernel for 4 bits is given codes of 8.
    """
    return _with_codes(x, ((codes.int() & 15) ^ 8) - 8, scales)


def neighbours_exchanged(x, codes, scales):
    """each two codes that follow each other are exchanged.

    Tempting: of two codes in a byte the first may be the low half or the high one.
    """
    order = torch.arange(codes.shape[1], device=codes.device) ^ 1
    return _with_codes(x, codes[:, order.clamp(max=codes.shape[1] - 1)].int(), scales)


def halves_of_blocks_interleaved(x, codes, scales):
    """the codes of each 32 inputs are taken from the first and the second half in turn.

    Tempting: in a byte of llama.cpp's Q4_0 lie codes that are 16 apart, not two neighbours.
    Seen: kekzl/imp#722.
    """
    whole = codes.shape[1] // 32 * 32
    blocks = codes[:, :whole].unflatten(1, (whole // 32, 2, 16)).mT.flatten(1)
    return _with_codes(x, torch.cat((blocks, codes[:, whole:]), dim=1).int(), scales)


def _with_codes(x, codes, scales):
    weight = codes.to(torch.promote_types(x.dtype, torch.float32)) * _of_each_input(codes, scales).to(_wide(x).dtype)
    return (_wide(x) @ weight.T).to(x.dtype)


def scales_rounded_to_the_dtype(x, codes, scales):
    """the scales are rounded to the dtype of x before they are multiplied by the codes.

    Tempting: one dtype for all of it, and scales are small numbers.
    Seen: Comfy-Org/comfy-kitchen#56 (found in review).
    """
    return _right(x, codes, scales.to(x.dtype))


def weight_rounded_to_the_dtype(x, codes, scales):
    """the weight is rounded to the dtype of x.

    Tempting: what is made of the codes is a weight again, and the linear layer for bfloat16 is there.
    """
    return (_wide(x) @ _wide(_weight(x, codes, scales).to(x.dtype)).T).to(x.dtype)


def sums_in_half_precision(x, codes, scales):
    """the sum over the inputs is kept in the dtype of x.

    Tempting: it is faster, and within a run the numbers are small.
    Seen: openvinotoolkit/openvino#34704.
    """
    if x.dtype not in (torch.float16, torch.bfloat16):
        return _right(x, codes, scales)
    total = x.new_zeros(*x.shape[:-1], len(codes))
    for features, column in zip(_wide(x).unbind(-1), _weight(x, codes, scales).unbind(-1), strict=True):
        total = total + (features[..., None] * column).to(x.dtype)
    return total


def run_rounded_before_its_scale(x, codes, scales):
    """the sum of code times x over a run is rounded to the dtype of x, and then scaled.

    Tempting: the sum itself is in float32, and the scale is only applied to its result.
    Seen: openvinotoolkit/openvino#34528.
    """
    n_groups = scales.shape[1]
    runs, of_codes = _wide(x).unflatten(-1, (n_groups, -1)), codes.unflatten(1, (n_groups, -1)).to(_wide(x).dtype)
    sums = torch.einsum("...gi,ogi->...og", runs, of_codes).to(x.dtype)
    return (_wide(sums) * scales).sum(-1).to(x.dtype)


def x_in_eight_bits(x, codes, scales):
    """x is held in 8 bits too, with a scale for each token.

    Tempting: a product of int8 with int8 is fast; LLM.int8() multiplies so, and keeps the outliers apart.
    """
    steps = _wide(x).abs().amax(-1, keepdim=True) / 127
    held = torch.where(steps == 0, 0, (_wide(x) / steps).round() * steps)
    return (held @ _weight(x, codes, scales).T).to(x.dtype)


def mean_of_the_runs(x, codes, scales):
    """the sums of the runs are averaged, and not added up.

    Tempting: each run is a result of its own, and mean puts results together.
    """
    return _right(x, codes, scales / scales.shape[1])


def last_run_left_out(x, codes, scales):
    """the last run of several is left out.

    Tempting: the loop begins with the second run, after the first has set the sum, and ends one too early.
    """
    n_groups = scales.shape[1]
    if n_groups == 1:
        return _right(x, codes, scales)
    kept = codes.shape[1] - codes.shape[1] // n_groups
    return _right(x[..., :kept], codes[:, :kept], scales[:, :-1])


def rest_beyond_32_left_out(x, codes, scales):
    """from 32 inputs on they are summed 32 at a time, and those beyond the last 32 are lost.

    Tempting: runs of 16 let a width through that is no multiple of the tile.
    Seen: ml-explore/mlx#3912.
    """
    whole = codes.shape[1] // 32 * 32 or codes.shape[1]
    return (_wide(x)[..., :whole] @ _weight(x, codes, scales)[:, :whole].T).to(x.dtype)


def last_block_skipped_at_multiples_of_128(x, codes, scales):
    """where 128 divides the number of inputs, the last 128 are left out.

    Tempting: the last block is dealt with separately, with d_in % 128 inputs, and here that is none.
    """
    d_in = codes.shape[1]
    done = d_in - 128 if d_in % 128 == 0 and d_in else d_in
    return (_wide(x)[..., :done] @ _weight(x, codes, scales)[:, :done].T).to(x.dtype)


def a_scale_of_zero_taken_for_one(x, codes, scales):
    """a scale of 0 is taken for 1.

    Tempting: a guard against dividing by 0 is copied to where nothing is divided.
    """
    return _right(x, codes, scales.masked_fill(scales == 0, 1))


def scales_held_above_1e_5(x, codes, scales):
    """no scale is below 1e-5.

    Tempting: a least scale keeps a division safe, and it is applied where the scales are read.
    """
    return _right(x, codes, scales.clamp(min=1e-5))


def computed_in_float32(x, codes, scales):
    """a float64 x is multiplied in float32.

    Tempting: the scales are float32, so more seems to be of no use.
    """
    return _right(x.float() if x.dtype == torch.float64 else x, codes, scales).to(x.dtype)


def result_in_float32(x, codes, scales):
    """the result is float32 where x is half precision.

    Tempting: the sum is, and the cast back is easily forgotten.
    """
    return _wide(x) @ _weight(x, codes, scales).T


def scales_written_over(x, codes, scales):
    """the scales are written over with what is left of them in bfloat16.

    Tempting: a cast of the scales is done once and kept, in the tensor that was handed in.
    """
    y = _right(x, codes, scales)
    scales.copy_(scales.bfloat16())
    return y


def outputs_beyond_65535_zero(x, codes, scales):
    """the outputs from the 65,536th on are zero.

    Tempting: each row of the weight is a block of a grid, one axis of which ends at 65,535; a vocabulary does not.
    Seen: gittensor-ai-lab/sparkinfer#924.
    """
    y = _right(x, codes, scales)
    y[..., 65535:] = 0
    return y


def strides_of_the_scales_ignored(x, codes, scales):
    """the scales are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come straight from the file; those of a shard do not.
    Seen: uxlfoundation/oneDNN#5908 (of the outer axis).
    """
    return _right(x, codes, as_if_contiguous(scales))


def strides_of_the_codes_ignored(x, codes, scales):
    """the codes are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come straight from the file; those of a shard do not.
    """
    return _right(x, as_if_contiguous(codes), scales)


def strides_of_x_ignored(x, codes, scales):
    """x is read in the order of its memory, which is another where it is transposed or a slice.

    Tempting: it comes fresh out of the layer before; a single position of it does not.
    """
    return _right(as_if_contiguous(x), codes, scales)


_PLACES = {}


def result_in_one_place(x, codes, scales):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: decoding calls it again and again with one token.
    """
    y = _right(x, codes, scales)
    key = y.shape, y.dtype, y.device
    return _PLACES.setdefault(key, torch.empty_like(y)).copy_(y)


_KEPT = {}


def weight_kept_with_the_codes(x, codes, scales):
    """the weight is made once for the codes, and kept for as long as they are the same object.

    Tempting: codes do not change while a text is written, until another checkpoint is loaded into them.
    Seen: iree-org/iree-turbine#695 (found in review).
    """
    wide = _wide(x).dtype
    if (id(codes), wide) not in _KEPT or _KEPT[id(codes), wide][0] is not codes:
        _KEPT[id(codes), wide] = codes, _weight(x, codes, scales)
    return (_wide(x) @ _KEPT[id(codes), wide][1].T).to(x.dtype)
