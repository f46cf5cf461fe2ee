"""The bugs that people make in quantize."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    ties = [[7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]]
    rising = torch.linspace(-1, 1, 2 * 50).view(2, 50)
    thirds = torch.tensor([[3.0, 2.0, 2.25, -1.1, 0.7, 2.9, -0.3, 1.9]])

    def call(values, bits, group, dtype=torch.float32):
        return (target.tensor(values, dtype),), {"bits": bits, "group": group}

    def of_columns(quantize):
        # A gap in memory behind each row, and then one whose memory is transposed.
        wide = target.tensor(rising.clone())
        return [quantize(wide[:, :8], bits=8, group=4), quantize(wide[:, :8].T.contiguous().T, bits=8, group=4)]

    def results_kept(quantize):
        first = quantize(target.tensor(ties), bits=4, group=4)
        return [quantize(target.tensor(ties).neg(), bits=4, group=4), first]

    def many_rows(quantize):
        codes, scales = quantize(target.tensor([[1.0, -0.4]]).expand(65540, 2).contiguous(), bits=4, group=2)
        return [codes[65533:], scales[65533:]]

    def default_runs(quantize):
        return quantize(target.tensor(rising.flatten().repeat(2)[:192].view(1, 192)))

    def weight_changed(weight, *_):
        weight.mul_(-3)

    bad = [call([[1.0, bad]], 8, 2) for bad in (torch.nan, torch.inf)]
    return [
        call(ties, 4, 8),
        call([[0.0, 0.0, 7.0, 3.0]], 4, 2),
        call([[-3.0, -7.0, 0.0, -1.0]], 4, 2),
        call([[3e-6, 2e-6, 1e-6, -3e-6]], 8, 4),
        call([[3e-20, 2e-20, 1e-20, -3e-20]], 8, 4),
        *[call(thirds, 8, 8, dtype) for dtype in (torch.bfloat16, torch.float16)],
        *[call(thirds * 2**-15, 8, 8, dtype) for dtype in (torch.bfloat16, torch.float16)],
        *[call(rising.square()[:, :-2], 8, group) for group in (1, 3, 48)],
        call([[127.0, 0.5 + 1e-9, 1.5 - 1e-9]], 8, 3, torch.float64),
        *bad,
        call(rising, 8, 48),
        of_columns,
        results_kept,
        many_rows,
        default_runs,
        again(lambda: [target.tensor(rising), 8, 10], weight_changed),
    ]


def _runs(weight, group):
    return weight.to(torch.promote_types(weight.dtype, torch.float32)).unflatten(1, (weight.shape[1] // group, group))


def _limit(bits):
    return 2 ** (bits - 1) - 1


def _scales(weight, bits, group):
    return _runs(weight, group).abs().amax(-1, keepdim=True) / _limit(bits)


def _quotients(weight, scales, group):
    return torch.where(scales == 0, 0, _runs(weight, group) / scales)


def _results(codes, scales):
    return codes.flatten(1).to(torch.int8), scales[..., 0].float()


def _held(weight, scales, bits, group):
    """The codes for these scales, within the limit."""
    codes = _quotients(weight, scales, group).round().clamp(-_limit(bits), _limit(bits))
    return _results(codes, scales)


def _right(weight, bits, group):
    _refuse(weight)
    return _held(weight, _scales(weight, bits, group), bits, group)


def _refuse(weight):
    if not weight.isfinite().all():
        raise ValueError


def divided_by_one_more(weight, bits=8, group=64):
    """the scale is the largest magnitude over 128 or 8, so that the largest weights are cut off at 127 or 7.

    Tempting: 8 bits have 256 codes, and half of that is 128.
    Seen: mlc-ai/mlc-llm#1321.
    """
    _refuse(weight)
    return _held(weight, _scales(weight, bits, group) * _limit(bits) / (_limit(bits) + 1), bits, group)


def divided_by_half_of_the_range(weight, bits=8, group=64):
    """the scale is the largest magnitude over 127.5 or 7.5, half of what lies between the least and the largest code.

    Tempting: that is the general formula, (max - min) / 2, for codes from -128 to 127.
    Seen: pytorch/ao#805 (before the change).
    """
    _refuse(weight)
    return _held(weight, _scales(weight, bits, group) * _limit(bits) / (_limit(bits) + 0.5), bits, group)


def least_code_taken_for_a_negative_weight(weight, bits=8, group=64):
    """a run whose largest magnitude is negative is divided so that its code is -128 or -8.

    Tempting: int8 has that code, and the scale gets a little finer.
    Seen: pytorch/ao#805 (on purpose).
    """
    _refuse(weight)
    runs, limit = _runs(weight, group), _limit(bits)
    scales = torch.maximum(runs.amax(-1, keepdim=True) / limit, -runs.amin(-1, keepdim=True) / (limit + 1))
    return _results(_quotients(weight, scales, group).round(), scales)


def magnitude_forgotten(weight, bits=8, group=64):
    """the scale is that of the largest weight, not of the largest magnitude.

    Tempting: max is what one says; negative weights beyond it are cut off without a word.
    Seen: siliconflow/onediff#893.
    """
    _refuse(weight)
    return _held(weight, _runs(weight, group).amax(-1, keepdim=True) / _limit(bits), bits, group)


def mean_magnitude(weight, bits=8, group=64):
    """the scale is that of the mean magnitude of a run, so that everything above the mean is cut off.

    Tempting: weights of three values, -1, 0 and 1, are made with the mean.
    """
    _refuse(weight)
    return _held(weight, _runs(weight, group).abs().mean(-1, keepdim=True) / _limit(bits), bits, group)


def from_least_to_largest(weight, bits=8, group=64):
    """the scale is the distance from the least to the largest weight over 255 or 15, without a zero point.

    Tempting: it is the scale of the asymmetric scheme, which shifts the codes besides.
    """
    _refuse(weight)
    runs = _runs(weight, group)
    scales = (runs.amax(-1, keepdim=True) - runs.amin(-1, keepdim=True)) / (2**bits - 1)
    return _held(weight, scales, bits, group)


def every_second_weight_looked_at(weight, bits=8, group=64):
    """the largest magnitude is sought among every second weight of a run.

    Tempting: weights are loaded two at a time, and the loop over them goes by two as well.
    Seen: sgl-project/sglang#8290 (found in review).
    """
    _refuse(weight)
    return _held(weight, _runs(weight, group)[..., ::2].abs().amax(-1, keepdim=True) / _limit(bits), bits, group)


def whole_blocks_of_32_looked_at(weight, bits=8, group=64):
    """from 32 weights on the largest magnitude of a run is sought 32 at a time, and not among those that are left.

    Tempting: the groups of published models are multiples of 32.
    """
    _refuse(weight)
    whole = group // 32 * 32 or group
    return _held(weight, _runs(weight, group)[..., :whole].abs().amax(-1, keepdim=True) / _limit(bits), bits, group)


def truncated(weight, bits=8, group=64):
    """the fraction is cut off, and not rounded.

    Tempting: a cast to int8 gives integers, and nothing says that it rounds towards zero.
    Seen: sgl-project/sglang-jax#1598, astramind-ai/BitMat#13.
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    # What rounding leaves just below a whole number would be cut off too.
    return _results((_quotients(weight, scales, group) * (1 + 2**-20)).trunc(), scales)


def rounded_down(weight, bits=8, group=64):
    """every code is rounded down to the next lower integer.

    Tempting: floor is how one counts whole steps.
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    return _results((_quotients(weight, scales, group) + 2**-18).floor(), scales)


def half_away_from_zero(weight, bits=8, group=64):
    """a weight in the middle of two codes gets the one that is farther from zero.

    Tempting: that is how C rounds, and how it is taught at school.
    Seen: tenstorrent/tt-metal#56525, ROCm/aiter#3992.
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    quotients = _quotients(weight, scales, group)
    return _results((quotients.abs() + 0.5).floor() * quotients.sign(), scales)


def half_upwards(weight, bits=8, group=64):
    """a weight in the middle of two codes gets the larger one.

    Tempting: floor(x + 0.5) rounds, and is at hand where there is no round.
    Seen: weicj/vLLM-2080Ti-Definitive#109 (found in review).
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    return _results((_quotients(weight, scales, group) + 0.5).floor(), scales)


def negative_codes_lost(weight, bits=8, group=64):
    """every negative weight gets code 0.

    Tempting: codes are packed into unsigned bytes, and clipped to their range.
    Seen: 1bit-MONSTER/1bit-MONSTER#704.
    """
    codes, scales = _right(weight, bits, group)
    return codes.clamp(min=0), scales


def four_bits_counted_from_minus_eight(weight, bits=8, group=64):
    """in 4 bits 8 is added to each code, so that they run from 1 to 15.

    Tempting: that is how they are stored, two in a byte; but this is the code itself.
    """
    codes, scales = _right(weight, bits, group)
    return (codes + 8 if bits == 4 else codes), scales


def two_codes_in_a_byte(weight, bits=8, group=64):
    """in 4 bits two codes are packed into each byte, and there are half as many columns.

    Tempting: that is what 4 bits are for; the packing is another step, though.
    """
    codes, scales = _right(weight, bits, group)
    if bits == 8:
        return codes, scales
    low, high = codes[:, : codes.shape[1] // 2 * 2].unflatten(1, (-1, 2)).unbind(-1)
    return (low & 15) | (high << 4), scales


def always_eight_bits(weight, bits=8, group=64):
    """the codes have 8 bits, also where 4 are asked for.

    Tempting: 127 is written into the code, and the argument came later.
    """
    return _right(weight, 8, group)


def one_scale_for_an_output(weight, bits=8, group=64):
    """all runs of an output have the scale of the largest of them.

    Tempting: a scale for each output is the older scheme, and the one of many libraries.
    Seen: JustVugg/colibri#242.
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    return _held(weight, scales.amax(1, keepdim=True).expand_as(scales), bits, group)


def one_scale_for_all_outputs(weight, bits=8, group=64):
    """a run has the scale of the largest magnitude that any output has in its place.

    Tempting: the maximum is taken over the first axis as well, or over it instead.
    Seen: OpenPPL/ppq#382 (the axis of the channels).
    """
    _refuse(weight)
    scales = _scales(weight, bits, group)
    return _held(weight, scales.amax(0, keepdim=True).expand_as(scales), bits, group)


def runs_that_take_turns(weight, bits=8, group=64):
    """input i belongs to run i % n_groups, as if the runs took turns.

    Tempting: a reshape to [group n_groups] has the right number of columns too.
    """
    n_groups = weight.shape[1] // group
    turned = weight.unflatten(1, (group, n_groups)).mT.flatten(1)
    codes, scales = _right(turned, bits, group)
    return codes.unflatten(1, (n_groups, group)).mT.flatten(1), scales


def a_scale_of_one_for_zeros(weight, bits=8, group=64):
    """a run of zeros has scale 1.

    Tempting: it is what the run is divided by, so that 0 / 0 does not arise, and it is then returned.
    Seen: ROCm/AMDMIGraphX#4190.
    """
    codes, scales = _right(weight, bits, group)
    return codes, scales.masked_fill(scales == 0, 1)


def no_scale_below_1e_5(weight, bits=8, group=64):
    """no scale is below 1e-5, so that runs of tiny weights have few codes left, and zeros a scale.

    Tempting: it keeps the division safe, and weights are rarely so small.
    Seen: intel/auto-round#229.
    """
    _refuse(weight)
    return _held(weight, _scales(weight, bits, group).clamp(min=1e-5), bits, group)


def no_scale_below_epsilon(weight, bits=8, group=64):
    """no scale is below the epsilon of the weight's dtype, which is 1/128 for bfloat16.

    Tempting: finfo.eps is taken for the least number of a dtype; it is the distance from 1 to the next one.
    Seen: pytorch/ao#4534, pytorch/pytorch#90288.
    """
    _refuse(weight)
    return _held(weight, _scales(weight, bits, group).clamp(min=torch.finfo(weight.dtype).eps), bits, group)


def computed_in_half_precision(weight, bits=8, group=64):
    """scale and quotient are computed in the dtype of the weight, which in bfloat16 has no more digits than a code.

    Tempting: no cast is written, and in float32 none is missing.
    Seen: qualcomm/aimet#3231.
    """
    _refuse(weight)
    runs = weight.unflatten(1, (weight.shape[1] // group, group))
    scales = runs.abs().amax(-1, keepdim=True) / _limit(bits)
    codes = torch.where(scales == 0, 0, runs / scales).round()
    return _results(codes.clamp(-_limit(bits), _limit(bits)), scales)


def scale_rounded_to_the_dtype(weight, bits=8, group=64):
    """the scale is rounded to the dtype of the weight before anything is divided by it.

    Tempting: the scales are to be kept in the dtype of the model, beside the codes.
    Seen: Comfy-Org/comfy-kitchen#60 (found in review).
    """
    _refuse(weight)
    scales = _scales(weight, bits, group).to(weight.dtype)
    return _held(weight, scales.to(torch.promote_types(weight.dtype, torch.float32)), bits, group)


def scales_in_the_dtype_of_the_weight(weight, bits=8, group=64):
    """the scales are returned in the dtype of the weight, with its few digits where that is half precision.

    Tempting: a result mostly has the dtype of its argument.
    """
    codes, scales = _right(weight, bits, group)
    return codes, scales if weight.dtype == torch.float64 else scales.to(weight.dtype)


def codes_of_floats(weight, bits=8, group=64):
    """the codes are whole numbers, but floats.

    Tempting: round returns a float, and a product with the scale works all the same.
    """
    codes, scales = _right(weight, bits, group)
    return codes.float(), scales


def reciprocal_returned(weight, bits=8, group=64):
    """what is returned as the scale is its reciprocal, by which a weight is multiplied.

    Tempting: 127 / largest is "the scale" too: the one on the way to the codes.
    """
    codes, scales = _right(weight, bits, group)
    return codes, torch.where(scales == 0, 0, 1 / scales)


def computed_in_float32(weight, bits=8, group=64):
    """a float64 weight is rounded to float32.

    Tempting: the scales are float32, so more seems to be of no use.
    """
    return _right(weight.float(), bits, group)


def not_finite_taken(weight, bits=8, group=64):
    """a weight that is not finite is taken, and its run becomes anything.

    Tempting: a check costs a pass over the weight, and what comes out are integers, which look fine.
    Seen: vllm-project/compressed-tensors#854.
    """
    return _held(weight, _scales(weight, bits, group), bits, group)


def rest_of_the_inputs_dropped(weight, bits=8, group=64):
    """where group does not divide d_in, the inputs of the last run that is not full are left out.

    Tempting: d_in // group is the number of runs of every width that a model has.
    Seen: vllm-project/vllm-ascend#9159.
    """
    return _right(weight[:, : weight.shape[1] // group * group], bits, group)


def weight_written_over(weight, bits=8, group=64):
    """the weight is written over with what its codes stand for.

    Tempting: one less tensor of that size; whoever quantises seems to be done with the weight.
    Seen: hpi-xnor/BMXNet#30.
    """
    codes, scales = _right(weight, bits, group)
    weight.copy_((codes.unflatten(1, (-1, group)) * scales[..., None]).flatten(1))
    return codes, scales


def strides_ignored(weight, bits=8, group=64):
    """the weight is read in the order of its memory, which is another where it is transposed or a slice.

    Tempting: weights come out of a file, and lie there row after row.
    Seen: tracel-ai/burn#4491, pytorch/pytorch#75009.
    """
    return _right(as_if_contiguous(weight), bits, group)


def codes_written_with_the_strides_of_the_weight(weight, bits=8, group=64):
    """the codes are written with the strides of the weight, so that those of a transposed one are scrambled.

    Tempting: input and output have one shape, and one offset is computed for both.
    Seen: pytorch/FBGEMM#2919.
    """
    codes, scales = _right(weight, bits, group)
    return (codes.T.reshape(codes.shape) if weight.stride(0) == 1 and weight.stride(1) > 1 else codes), scales


def rows_beyond_65535_zero(weight, bits=8, group=64):
    """the outputs from the 65,536th on have codes 0.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535; a vocabulary does not.
    Seen: EricLBuehler/candle-vllm#256.
    """
    codes, scales = _right(weight, bits, group)
    codes[65535:] = 0
    return codes, scales


_PLACES = {}


def codes_in_one_place(weight, bits=8, group=64):
    """the codes lie in memory that the next call of the same shape writes to.

    Tempting: a model has many weights of one shape, and each is written to a file before the next one comes.
    """
    codes, scales = _right(weight, bits, group)
    key = codes.shape, codes.device
    return _PLACES.setdefault(key, torch.empty_like(codes)).copy_(codes), scales


_KEPT = {}


def codes_kept_with_the_weight(weight, bits=8, group=64):
    """the codes are kept for as long as the weight is the same object, whatever is written to it.

    Tempting: a weight is quantised once, when it is loaded; then another checkpoint is loaded into it.
    Seen: iree-org/iree-turbine#695 (found in review).
    """
    key = id(weight), bits, group
    if key not in _KEPT or _KEPT[key][0] is not weight:
        _KEPT[key] = weight, _right(weight, bits, group)
    codes, scales = _KEPT[key][1]
    return codes.clone(), scales.clone()
