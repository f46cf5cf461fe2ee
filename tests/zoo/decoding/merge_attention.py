"""The bugs that people make in merge_attention."""

import math

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def probes():
    """Sums far apart and far from zero, empty parts that hold anything, dtypes that differ, and other layouts."""

    def call(lse_a, lse_b, y_a=(1.0, 2.0), y_b=(4.0, 8.0), dtype=target.ALL[0], lse_dtype=None):
        def probe(layer):
            y = [target.tensor(of, dtype).reshape(1, 1, -1) for of in (y_a, y_b)]
            lse = [target.tensor([[of]], lse_dtype or dtype) for of in (lse_a, lse_b)]
            return list(layer(y[0], lse[0], y[1], lse[1]))

        return probe

    def make(shape=(2, 3), features=4, dtype=None):
        lines = [torch.linspace(-1 - i, 2, math.prod(shape) * features).view(*shape, features) for i in range(2)]
        sums = [torch.linspace(-i, 1 + i, math.prod(shape)).view(shape) for i in range(2)]
        return [target.tensor(t, dtype) for t in (lines[0], sums[0], lines[1], sums[1])]

    def lying(place):
        def probe(layer):
            args = make()
            args[place] = args[place].mT.contiguous().mT
            return list(layer(*args))

        return probe

    def twice(layer):
        first = layer(*make())
        y_a, lse_a, y_b, lse_b = make()
        return [*layer(y_b, lse_b, y_a, lse_a + 1), *first]

    def written_to(layer):
        args = make()
        layer(*args)
        return args

    def returned(layer):
        y_a, lse_a, y_b, lse_b = make()
        lse_b.fill_(-math.inf)
        for part in layer(y_a, lse_a, y_b, lse_b):
            part.zero_()
        return [y_a, lse_a]

    nothing, nan = -math.inf, (math.nan, math.nan)
    return [
        call(0.0, 1000.0),
        call(1000.0, 0.0),
        call(1000.0, 1001.0),
        call(-1000.0, -1001.0),
        call(-6e4, -60001.0),
        call(nothing, 2.0),
        call(2.0, nothing),
        call(nothing, 2.0, y_a=nan),
        call(2.0, nothing, y_b=nan),
        call(nothing, nothing),
        call(nothing, nothing, y_a=nan, y_b=nan),
        call(nothing, nothing, y_b=nan),
        call(3.01, 3.0, dtype=torch.bfloat16, lse_dtype=torch.float32),
        call(1e4 + 1e-4, 1e4, dtype=torch.float32, lse_dtype=torch.float64),
        call(1.0, 2.0, dtype=torch.float32, lse_dtype=torch.float64),
        call(-80.0, 0.0, dtype=torch.float32),
        (tuple(make()), {}),
        (tuple(make(shape=(2, 2, 2, 3), features=3)), {}),
        (tuple(make(shape=(2, 3, 2), features=4)), {}),
        (tuple(make(shape=(70_000,), features=1)), {}),
        *map(lying, range(4)),
        twice,
        written_to,
        returned,
    ]


def _wide(*tensors):
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _weights(lse_a, lse_b):
    """exp(lse - largest) of both, 0 where there is nothing, and the largest."""
    largest = torch.maximum(lse_a, lse_b)
    finite = largest.masked_fill(largest == -torch.inf, 0)
    return torch.exp(lse_a - finite), torch.exp(lse_b - finite), largest


def _parts(w_a, y_a, w_b, y_b):
    """w_a · y_a + w_b · y_b, where what has no weight may hold anything."""
    return sum((w * y.masked_fill(w == 0, 0)) for w, y in ((w_a[..., None], y_a), (w_b[..., None], y_b)))


def _divided(total, y):
    return y / total.masked_fill(total == 0, 1)[..., None]


def _mean(w_a, y_a, w_b, y_b):
    return _divided(w_a + w_b, _parts(w_a, y_a, w_b, y_b))


def _lse(w_a, w_b, largest):
    return largest + torch.log(w_a + w_b)


def _merge(y_a, lse_a, y_b, lse_b, *, weights=_weights, mean=_mean, lse=_lse):
    """What is right; what is given by name takes the place of a part of it."""
    wide = _wide(y_a, lse_a, y_b, lse_b)
    w_a, w_b, largest = weights(lse_a.to(wide), lse_b.to(wide))
    y = mean(w_a, y_a.to(wide), w_b, y_b.to(wide))
    return y.to(y_a.dtype), lse(w_a, w_b, largest).to(lse_a.dtype)


def weights_exchanged(y_a, lse_a, y_b, lse_b):
    """each part has the weight of the other.

    Tempting: sigmoid(lse_b - lse_a) is the weight of one of the two, and one has to think which.
    """
    return _merge(y_a, lse_a, y_b, lse_b, mean=lambda w_a, y_a, w_b, y_b: _mean(w_b, y_a, w_a, y_b))


def both_parts_alike(y_a, lse_a, y_b, lse_b):
    """y is the plain mean of both, whatever their sums are; an empty part counts for nothing.

    Tempting: with as many keys in each part it looks fair.
    """
    return _merge(
        y_a, lse_a, y_b, lse_b, mean=lambda w_a, y_a, w_b, y_b: _mean((w_a > 0).to(y_a), y_a, (w_b > 0).to(y_b), y_b)
    )


def larger_part_alone(y_a, lse_a, y_b, lse_b):
    """y is that of the part with the larger lse.

    Tempting: it is what the largest score decides, and mostly the other part has little weight.
    """
    return _merge(
        y_a, lse_a, y_b, lse_b, mean=lambda w_a, y_a, w_b, y_b: _mean(w_a.floor(), y_a, w_b.floor() * (w_a < 1), y_b)
    )


def lse_taken_for_weights(y_a, lse_a, y_b, lse_b):
    """the weights are the lse themselves, without exp.

    Tempting: they are numbers that grow with the keys of a part, and both are at hand.
    """

    def mean(w_a, y_a, w_b, y_b):
        shares = [of.to(y_a.dtype).masked_fill(of == -torch.inf, 0) for of in (lse_a, lse_b)]
        return _mean(shares[0], y_a, shares[1], y_b)

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def largest_not_subtracted(y_a, lse_a, y_b, lse_b):
    """exp is taken of lse as it is, which overflows where scores are large, and vanishes where they are low.

    Tempting: the sum of two sums is exp(lse_a) + exp(lse_b), and its logarithm is the new lse.
    Seen: NVIDIA/TransformerEngine#716, SHI-Labs/NATTEN#202.
    """

    def weights(lse_a, lse_b):
        return lse_a.exp(), lse_b.exp(), torch.zeros_like(lse_a)

    return _merge(y_a, lse_a, y_b, lse_b, weights=weights)


def first_subtracted(y_a, lse_a, y_b, lse_b):
    """lse_a is subtracted in place of the larger one, so that exp overflows where lse_b lies far above it.

    Tempting: the first part is what was summed so far, and log(1 + exp(lse_b - lse_a)) is the formula of a book.
    """

    def weights(lse_a, lse_b):
        first = torch.where(lse_a == -torch.inf, lse_b, lse_a)
        finite = first.masked_fill(first == -torch.inf, 0)
        return torch.exp(lse_a - finite), torch.exp(lse_b - finite), first

    return _merge(y_a, lse_a, y_b, lse_b, weights=weights)


def nan_where_both_are_empty(y_a, lse_a, y_b, lse_b):
    """where both parts are empty, y and lse are NaN.

    Tempting: the largest is subtracted, as always, and -inf less -inf is NaN.
    Seen: vllm-project/vllm#39148, flashinfer-ai/flashinfer#4051.
    """

    def weights(lse_a, lse_b):
        largest = torch.maximum(lse_a, lse_b)
        return torch.exp(lse_a - largest), torch.exp(lse_b - largest), largest

    return _merge(y_a, lse_a, y_b, lse_b, weights=weights)


def y_is_nan_where_both_are_empty(y_a, lse_a, y_b, lse_b):
    """where both parts are empty, y is NaN; lse is -inf.

    Tempting: the weights are 0 then, and so is their sum, by which y is divided.
    """

    def mean(w_a, y_a, w_b, y_b):
        return _parts(w_a, y_a, w_b, y_b) / (w_a + w_b)[..., None]

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def first_where_both_are_empty(y_a, lse_a, y_b, lse_b):
    """where both parts are empty, y is y_a, whatever that holds, and not zeros.

    Tempting: a part without keys should hold zeros, so that any of the two can be copied.
    Seen: vllm-project/vllm#28181.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    return torch.where((lse == -torch.inf)[..., None], y_a, y), lse


def empty_part_times_zero(y_a, lse_a, y_b, lse_b):
    """the y of an empty part is multiplied by its weight 0, which leaves NaN where it holds NaN.

    Tempting: 0 times anything is 0; but nobody has written to the memory of an empty part.
    Seen: ohdearquant/lattice#789 (within attention), vllm-project/vllm#936 (within attention).
    """

    def mean(w_a, y_a, w_b, y_b):
        return _divided(w_a + w_b, w_a[..., None] * y_a + w_b[..., None] * y_b)

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def empty_first_part_times_zero(y_a, lse_a, y_b, lse_b):
    """the y of an empty first part is multiplied by its weight 0, which leaves NaN where it holds NaN; b is looked at.

    Tempting: the first part is what was summed so far, and that is never empty, one thinks.
    """

    def mean(w_a, y_a, w_b, y_b):
        y_b = y_b.masked_fill(w_b[..., None] == 0, 0)
        return _divided(w_a + w_b, w_a[..., None] * y_a + w_b[..., None] * y_b)

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def empty_at_the_lowest_number(y_a, lse_a, y_b, lse_b):
    """where both parts are empty, lse is the lowest finite number instead of -inf; y is zeros.

    Tempting: -inf is made a number so that nothing becomes NaN, and nobody makes it -inf again.
    Seen: ROCm/ATOM#1152.
    """
    lowest = torch.finfo(torch.float32).min
    return _merge(y_a, lse_a, y_b, lse_b, lse=lambda w_a, w_b, largest: _lse(w_a, w_b, largest).clamp(min=lowest))


def lse_is_the_larger(y_a, lse_a, y_b, lse_b):
    """lse is the larger of the two; the logarithm of the sum of the weights is not added.

    Tempting: y is right already, and one of the two has to be handed on.
    """
    return _merge(y_a, lse_a, y_b, lse_b, lse=lambda w_a, w_b, largest: largest)


def lse_without_the_larger(y_a, lse_a, y_b, lse_b):
    """lse is the logarithm of the sum of the weights; the larger one, which was subtracted, is not added again.

    Tempting: for y it cancels, and it is forgotten that it was there.
    """

    def lse(w_a, w_b, largest):
        return torch.log(w_a + w_b)

    return _merge(y_a, lse_a, y_b, lse_b, lse=lse)


def lse_added(y_a, lse_a, y_b, lse_b):
    """lse is lse_a + lse_b.

    Tempting: the sums of two sets are added, and these stand for them.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    return y, (lse_a.to(_wide(y_a, lse_a, y_b, lse_b)) + lse_b).to(lse.dtype)


def lse_of_the_first_part(y_a, lse_a, y_b, lse_b):
    """lse is lse_a as it came.

    Tempting: y is what is wanted, and in the first merge nobody looks at lse.
    """
    y, _ = _merge(y_a, lse_a, y_b, lse_b)
    return y, lse_a.clone()


def lse_of_the_mean(y_a, lse_a, y_b, lse_b):
    """lse is too small by ln 2: the logarithm is that of the mean of both sums.

    Tempting: y is a mean as well.
    """

    def lse(w_a, w_b, largest):
        return _lse(w_a / 2, w_b / 2, largest)

    return _merge(y_a, lse_a, y_b, lse_b, lse=lse)


def powers_of_2(y_a, lse_a, y_b, lse_b):
    """lse is taken for a logarithm to the base 2: the weights are powers of 2, and so is what comes out.

    Tempting: there are kernels whose lse is one, and this one belongs to them.
    Seen: sgl-project/sglang#35045 (backwards), vllm-project/vllm#47079 (backwards).
    """

    def weights(lse_a, lse_b):
        w_a, w_b, largest = _weights(lse_a * math.log(2), lse_b * math.log(2))
        return w_a, w_b, largest / math.log(2)

    def lse(w_a, w_b, largest):
        return largest + torch.log2(w_a + w_b)

    return _merge(y_a, lse_a, y_b, lse_b, weights=weights, lse=lse)


def not_divided(y_a, lse_a, y_b, lse_b):
    """the weighted sum is not divided by the sum of the weights.

    Tempting: the larger weight is 1, and where the other one is small there is no difference.
    """
    return _merge(y_a, lse_a, y_b, lse_b, mean=_parts)


def weight_from_the_new_lse(y_a, lse_a, y_b, lse_b):
    """the first part keeps its full weight, since lse_a has been replaced by the new lse before its weight is taken.

    Tempting: out and lse are updated in place, line by line, and the line of lse came first.
    Seen: local-inference-lab/vllm#468.
    """

    def mean(w_a, y_a, w_b, y_b):
        total = (w_a + w_b).masked_fill(w_a + w_b == 0, 1)
        return _parts((w_a > 0).to(y_a.dtype), y_a, w_b / total, y_b)

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def epsilon_in_the_sum(y_a, lse_a, y_b, lse_b):
    """y is divided by the sum of the weights and 1e-6 more.

    Tempting: it keeps 0/0 from being NaN where both parts are empty.
    Seen: vllm-project/vllm#39148 (with 1e-10).
    """

    def mean(w_a, y_a, w_b, y_b):
        return _parts(w_a, y_a, w_b, y_b) / (w_a + w_b + 1e-6)[..., None]

    return _merge(y_a, lse_a, y_b, lse_b, mean=mean)


def lse_in_the_dtype_of_y(y_a, lse_a, y_b, lse_b):
    """both lse are rounded to the dtype of y, in half precision to some three digits, before they are compared.

    Tempting: all that is computed with gets one dtype, and that of the larger tensor seems the natural one.
    """
    y, lse = _merge(y_a, lse_a.to(y_a.dtype), y_b, lse_b.to(y_a.dtype))
    return y, lse.to(lse_a.dtype)


def y_in_the_dtype_of_lse(y_a, lse_a, y_b, lse_b):
    """y comes back in the dtype of lse, which is float32 where y was half precision.

    Tempting: what is multiplied by weights in float32 becomes float32 by itself.
    """
    y, lse = _merge(y_a.to(lse_a.dtype), lse_a, y_b, lse_b)
    return y, lse


def returned_in_the_dtype_of_y(y_a, lse_a, y_b, lse_b):
    """lse comes back in the dtype of y.

    Tempting: both results are converted in one line.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    return y, lse.to(y.dtype)


def always_in_float32(y_a, lse_a, y_b, lse_b):
    """everything is computed in float32, float64 too.

    Tempting: lse is float32 wherever anybody uses it.
    """
    y, lse = _merge(y_a.float(), lse_a.float(), y_b.float(), lse_b.float())
    return y.to(y_a.dtype), lse.to(lse_a.dtype)


def lse_of_queries_before_heads(y_a, lse_a, y_b, lse_b):
    """with three axes and more in y, lse is read as if its last two axes had changed places.

    Tempting: there are kernels that return it so, and where both axes are equally long nothing else tells.
    Seen: vllm-project/vllm-omni#5543.
    """

    def turned(lse):
        return lse.mT.reshape(lse.shape) if lse.ndim >= 2 else lse

    y, _ = _merge(y_a, turned(lse_a), y_b, turned(lse_b))
    return y, _merge(y_a, lse_a, y_b, lse_b)[1]


def strides_of_lse_ignored(y_a, lse_a, y_b, lse_b):
    """both lse are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: there is one number for each row, one after the other.
    Seen: vllm-project/vllm#21996.
    """
    return _merge(y_a, as_if_contiguous(lse_a), y_b, as_if_contiguous(lse_b))


def strides_of_the_second_y_ignored(y_a, lse_a, y_b, lse_b):
    """y_b is read in the order of its memory, which is another where it is transposed or a slice.

    Tempting: what is merged comes fresh out of a kernel; and the strides of y_a are at hand.
    """
    return _merge(y_a, lse_a, as_if_contiguous(y_b), lse_b)


def features_beyond_a_multiple_of_4_left_out(y_a, lse_a, y_b, lse_b):
    """the features beyond a multiple of 4 stay zero, as 10 features have two.

    Tempting: four numbers are read at once, and every head_dim that a benchmark tries is a multiple.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    y[..., y.shape[-1] // 4 * 4 :] = 0
    return y, lse


def rows_beyond_65535_left_out(y_a, lse_a, y_b, lse_b):
    """of all rows, those from the 65,536th on stay zero, with lse -inf.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    beyond = torch.arange(lse.numel(), device=lse.device).view(lse.shape) >= 65535
    return y.masked_fill(beyond[..., None], 0), lse.masked_fill(beyond, -torch.inf)


def merged_in_place(y_a, lse_a, y_b, lse_b):
    """the result is written over y_a and lse_a.

    Tempting: the first part is what was summed so far, and it is not needed any more.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    y_a.copy_(y)
    lse_a.copy_(lse)
    return y, lse


def first_itself_where_the_second_is_empty(y_a, lse_a, y_b, lse_b):
    """where all of the second part is empty, y_a and lse_a themselves are returned, and no copies of them.

    Tempting: nothing has to be computed then.
    """
    if bool((lse_b == -torch.inf).all()) and not bool((lse_a == -torch.inf).any()):
        return y_a, lse_a
    return _merge(y_a, lse_a, y_b, lse_b)


_PLACES = {}


def result_in_one_place(y_a, lse_a, y_b, lse_b):
    """y lies in memory that the next call of the same shape writes to.

    Tempting: the parts of a long cache are merged one after another, always in the same shape.
    """
    y, lse = _merge(y_a, lse_a, y_b, lse_b)
    place = _PLACES.setdefault((y.shape, y.dtype, y.device), torch.empty_like(y))
    return place.copy_(y), lse
