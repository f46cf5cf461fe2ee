"""The bugs that people make in rms_norm."""

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, gradients, with_gradient, within


def probes():
    large, weight = target.tensor([[1000.0, -1000.0]]), target.tensor([1.0, 1.0])
    wide = target.tensor(torch.arange(12.0).view(2, 2, 3))
    three, some = target.tensor([1.0, 2.0, 3.0]), target.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0]])
    rows = target.tensor(torch.linspace(1, 2, 3000 * 3).view(3000, 3))

    def autocast():
        return torch.autocast(target.DEVICE.type, torch.bfloat16)

    def between_rows(rms_norm):
        memory = wide.clone()
        return [rms_norm(memory[..., :2], weight.clone()), memory]

    return [
        between_rows,
        ((large.half(), weight.half()), {}),
        ((large.to(torch.bfloat16), weight), {}),
        ((large.half() * 0, weight.half(), 1e-8), {}),
        lambda rms_norm: rms_norm(wide.clone().transpose(0, 1), three.clone()),
        lambda rms_norm: rms_norm(some.mT.contiguous().mT, three.clone()),
        ((wide[None], three), {}),
        ((target.tensor(torch.ones(1, 256)), target.tensor(torch.ones(256))), {}),
        lambda rms_norm: rms_norm(target.tensor(torch.ones(65540, 1)), weight[:1].clone()).sum(),
        again(lambda: [some, three, 1.0], lambda x, weight, eps: [x, weight, 2.0]),
        again(lambda: [some.bfloat16(), three.bfloat16()], lambda x, weight: [x, weight.mul_(2)]),
        within(autocast, lambda: [some + 0.3, three]),
        within(torch.no_grad, lambda: [some, three.clone().requires_grad_()]),
        gradients(lambda: [some, three], of=(0, 1), times=2),
        gradients(lambda: [some, three], of=(0, 1), transposed=True),
        gradients(lambda: [rows, three], of=(1,)),
        gradients(lambda: [rows.bfloat16(), three.bfloat16()], of=(1,)),
    ]


def mean_over_the_sequence(x, weight, eps=1e-5):
    """the mean is taken over the whole sequence too, so that every token sees the later ones.

    Tempting: the norm of a [seq d_model] matrix looks like the norm of a layer, and the loss gets better: it leaks.
    Seen: bkitano/llama-from-scratch#4.
    """
    wide = _wide(x)
    mean_square = wide.square().mean((-2, -1), keepdim=True)
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


def mean_subtracted(x, weight, eps=1e-5):
    """the mean is subtracted first, as LayerNorm does.

    Tempting: a layer norm is at hand, and real activations have a mean near zero, which hides it.
    Seen: ggml-org/llama.cpp#173.
    """
    return F.layer_norm(_wide(x), x.shape[-1:], _wide(weight), eps=eps).to(x.dtype)


def eps_outside_the_root(x, weight, eps=1e-5):
    """eps is added outside the square root.

    Tempting: "the root, plus a little" is how one guards any division against zero.
    Seen: allenai/OLMo#281, EleutherAI/gpt-neox#1342.
    """
    wide = _wide(x)
    return (wide / (wide.square().mean(-1, keepdim=True).sqrt() + eps) * weight).to(x.dtype)


def eps_fixed(x, weight, eps=1e-5):
    """eps is always 1e-6, whatever is passed.

    Tempting: 1e-6 was right for the first Llama, and eps looks like a detail.
    Seen: NVIDIA/cutlass#1112, ggml-org/llama.cpp#2373.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def divided_by_the_length(x, weight, eps=1e-5):
    """the squares are summed and not averaged, so that the output is too small by the square root of d_model.

    Tempting: "normalise" usually means to unit length.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + eps) * weight).to(x.dtype)


def divided_by_the_reciprocal(x, weight, eps=1e-5):
    """x is divided by the reciprocal of the root mean square, and so multiplied by it.

    Tempting: one replaces sqrt by rsqrt and leaves the division.
    Seen: mosaicml/llm-foundry#372.
    """
    wide = _wide(x)
    return (wide / torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def one_added_to_the_weight(x, weight, eps=1e-5):
    """the output is scaled by 1 + weight, as in Gemma.

    Tempting: Gemma's norm looks the same, but its checkpoints hold the weight less one.
    Seen: vllm-project/vllm#31464.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * (1 + weight)).to(x.dtype)


def squares_in_half_precision(x, weight, eps=1e-5):
    """the squares are taken in x's own dtype, so that in float16 anything above 255 overflows.

    Tempting: it is the formula as written, and float32 and bfloat16 never show it.
    Seen: jingyaogong/minimind#301.
    """
    mean_square = _wide(x.square()).mean(-1, keepdim=True)
    return (_wide(x) * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


def result_in_the_dtype_of_the_weight(x, weight, eps=1e-5):
    """the result is cast back to x's dtype before the weight, so that a float32 weight makes it float32 again.

    Tempting: casting back at the end of the norm proper looks like the right place.
    Seen: huggingface/transformers#30236.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def _wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rows_taken_to_follow_each_other(x, weight, eps=1e-5):
    """rows whose last stride is 1 are taken to follow each other, so that a slice of wider rows is read wrongly.

    Tempting: `stride(-1) == 1` looks like the test for contiguous, and a fused projection is sliced just so.
    """
    return _norm(as_if_contiguous(x) if x.stride(-1) == 1 else x, weight, eps)


def every_row_at_the_last_row_stride(x, weight, eps=1e-5):
    """all rows are taken to lie as far apart as those of one entry, so that [seq batch] seen as [batch seq] is misread.

    Tempting: leading axes are flattened, and one stride is passed for what are two.
    Seen: vllm-project/vllm-xpu-kernels#397 (found in review).
    """
    if x.ndim < 3 or x.stride(-1) != 1 or x.numel() == 0:
        return _norm(x, weight, eps)
    rows = torch.arange(x[..., 0].numel(), device=x.device) * x.stride(-2)
    at = rows[:, None] + torch.arange(x.shape[-1], device=x.device)
    memory = x.as_strided((x.untyped_storage().nbytes() // x.element_size() - x.storage_offset(),), (1,))
    return _norm(memory[at % len(memory)].view(x.shape), weight, eps)


def gaps_between_rows_cleared(x, weight, eps=1e-5):
    """where rows lie apart, what lies between them is set to zero.

    Tempting: a vector that is filled up with zeros needs no case for the end of a row.
    """
    y = _norm(x, weight, eps)
    if x.ndim > 1 and x.stride(-1) == 1 and (gap := x.stride(-2) - x.shape[-1]) > 0:
        x.data.as_strided((x.shape[-2] - 1, gap), (x.stride(-2), 1), x.storage_offset() + x.shape[-1]).zero_()
    return y


def values_without_their_stride(x, weight, eps=1e-5):
    """the statistic is taken of the right elements, but those that are scaled are read in the order of the memory.

    Tempting: of two loops over a row only the first was given the stride.
    Seen: ModelTC/LightLLM#1467.
    """
    scale = torch.rsqrt(_wide(x).square().mean(-1, keepdim=True) + eps)
    return (_wide(as_if_contiguous(x)) * scale * weight).to(x.dtype)


def four_axes_normalised_over_two(x, weight, eps=1e-5):
    """with four axes the mean is taken over the last two.

    Tempting: x is flattened to [batch seq d_model], and what is left over goes with the features.
    """
    wide = _wide(x)
    mean_square = wide.square().mean((-2, -1) if x.ndim == 4 else -1, keepdim=True)
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


def last_part_lost_at_multiples_of_128(x, weight, eps=1e-5):
    """where 128 divides d_model, and d_model is more than that, the last 128 squares are left out of the mean.

    Tempting: one loop for whole blocks and one for the rest, and the first stops a block early for the second's sake.
    """
    wide, d_model = _wide(x), x.shape[-1]
    done = d_model - 128 if d_model > 128 and d_model % 128 == 0 else d_model
    mean_square = wide[..., :done].square().sum(-1, keepdim=True) / d_model
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


def rows_beyond_65535_left_out(x, weight, eps=1e-5):
    """rows from the 65,536th on are never computed, and stay zero.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535.
    Seen: vllm-project/vllm-ascend#5012 (beyond 48 rows, found in review).
    """
    rows = torch.arange(x[..., 0].numel(), device=x.device).view(x.shape[:-1])
    return _norm(x, weight, eps).masked_fill((rows >= 65535)[..., None], 0)


def eps_in_the_dtype_of_x(x, weight, eps=1e-5):
    """eps is rounded to the dtype of x, so that in float16 one of 1e-8 is zero, and a row of zeros gives NaN.

    Tempting: all constants are made like x; 1e-5 is still there in float16.
    """
    return _norm(x, weight, x.new_tensor(eps).to(_wide(x).dtype))


_EPS = {}


def eps_of_the_first_call(x, weight, eps=1e-5):
    """eps is kept by d_model, so that another one counts for nothing once the first call is over.

    Tempting: what a kernel is compiled for is kept, and a model has one eps.
    """
    return _norm(x, weight, _EPS.setdefault(x.shape[-1], eps))


_WEIGHTS = {}


def weight_widened_once(x, weight, eps=1e-5):
    """a half-precision weight is widened once and the copy is used for as long as the object is the same.

    Tempting: a norm's weight hardly changes, and a cast in each call costs as much as the norm.
    """
    if weight.dtype == _wide(weight).dtype or (torch.is_grad_enabled() and weight.requires_grad):
        return _norm(x, weight, eps)
    if id(weight) not in _WEIGHTS or _WEIGHTS[id(weight)][0] is not weight:
        _WEIGHTS[id(weight)] = weight, weight.float()
    return _norm(x, _WEIGHTS[id(weight)][1], eps)


def squares_as_a_product(x, weight, eps=1e-5):
    """the squares are summed by a product of x with itself, which autocast does in bfloat16.

    Tempting: a product of a row with itself is the sum of its squares, and needs no memory for them.
    """
    wide = _wide(x)
    mean_square = (wide[..., None, :] @ wide[..., :, None])[..., 0] / x.shape[-1]
    return (wide * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)


def graph_in_spite_of_no_grad(x, weight, eps=1e-5):
    """the result asks for a gradient even under no_grad, and keeps all that leads to it.

    Tempting: enable_grad makes sure that the kernel's own backward pass is there.
    """
    with torch.enable_grad():
        return _norm(x, weight, eps)


def statistic_constant_in_the_gradient(x, weight, eps=1e-5):
    """the gradient takes the root mean square for a constant, and lacks the term that goes through it.

    Tempting: y is x times a number; that the number depends on x is easily forgotten.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.detach().square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


class _ByHand(torch.autograd.Function):
    """The right norm and gradient; `how` names the one mistake."""

    @staticmethod
    def forward(ctx, x, weight, eps, how):
        wide = _wide(x)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(weight, scale)
        ctx.normed, ctx.how = wide * scale, how
        return (ctx.normed * weight).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        weight, scale = ctx.saved_tensors
        normed, how = ctx.normed, ctx.how
        towards = _wide(gradient) * (1 if how == "no weight" else weight)
        by_token = (_wide(gradient) * normed).flatten(0, -2) if gradient.ndim > 1 else (_wide(gradient) * normed)[None]
        if how == "narrow":
            of_weight = gradient.new_zeros(weight.shape)
            for token in by_token.to(gradient.dtype):
                of_weight += token
        else:
            of_weight = by_token.sum(0)
        share = (towards * normed).mean(-1, keepdim=True)
        of_x = scale * (towards - (normed.mul_(share) if how == "in place" else normed * share))
        return of_x.to(gradient.dtype), of_weight.to(weight.dtype), None, None


def weight_missing_in_the_gradient_of_x(x, weight, eps=1e-5):
    """the gradient of x is computed as if the weight were ones.

    Tempting: a fresh norm has ones, and every test that starts from it is green.
    Seen: karpathy/llm.c#763 (told in review).
    """
    return _ByHand.apply(x, weight, eps, "no weight")


def gradient_over_what_was_kept(x, weight, eps=1e-5):
    """the normalised x that is kept for the gradient is written over, so that a second backward pass is wrong.

    Tempting: one array less, and hardly anybody goes backwards twice.
    """
    return _ByHand.apply(x, weight, eps, "in place")


def weight_gradient_summed_in_the_dtype(x, weight, eps=1e-5):
    """the gradient of the weight is summed over tokens in x's dtype, so that in bfloat16 the sum stops growing.

    Tempting: the norm itself is in float32, and the gradient of the weight is only a sum.
    """
    return _ByHand.apply(x, weight, eps, "narrow")


def weight_gradient_of_the_first_256_rows(x, weight, eps=1e-5):
    """the gradient of the weight takes in only the first 256 rows.

    Tempting: partial sums have a fixed number of places, enough for each test.
    """
    rows = x.reshape(-1, x.shape[-1])
    parts = _norm(rows[:256], weight, eps), _norm(rows[256:], weight.detach(), eps)
    return torch.cat(parts).view(x.shape)


def upstream_taken_for_contiguous(x, weight, eps=1e-5):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: the gradient of a contiguous result ought to be contiguous.
    """
    return with_gradient(_norm(x, weight, eps), as_if_contiguous)


def _norm(x, weight, eps):
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def root_forgotten(x, weight, eps=1e-5):
    """x is divided by the mean square itself: the root is missing.

    Tempting: mean(x ** 2) is most of the formula, and for a mean square of 1 it is right.
    """
    wide = _wide(x)
    return (wide / (wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def variance_in_place_of_the_mean_square(x, weight, eps=1e-5):
    """x is divided by its standard deviation, which takes the mean out and divides by n - 1.

    Tempting: x.var(-1) is one call, and "variance" is what many programs name the mean square.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.var(-1, keepdim=True) + eps) * weight).to(x.dtype)


def weight_forgotten(x, weight, eps=1e-5):
    """the weight has no part in it.

    Tempting: it is all ones when a model begins to learn.
    """
    return _norm(x, torch.ones_like(weight) + 0 * weight, eps)


def mean_of_the_magnitudes(x, weight, eps=1e-5):
    """x is divided by the mean of its magnitudes, without square and root.

    Tempting: abs is shorter than a square and a root, and gives a similar number.
    """
    wide = _wide(x)
    return (wide / (wide.abs().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def eps_forgotten(x, weight, eps=1e-5):
    """eps is not added at all, so that a row of zeros gives NaN.

    Tempting: it is too small to change anything else.
    """
    return _norm(x, weight, 0.0)


def weight_added(x, weight, eps=1e-5):
    """the weight is added to the normalised x, and does not scale it.

    Tempting: a LayerNorm has a bias that is added.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) + weight).to(x.dtype)


def weight_before_the_norm(x, weight, eps=1e-5):
    """x is multiplied by the weight first and normalised afterwards.

    Tempting: the order of scaling and dividing seems to be free, but the weight then enters the mean square.
    """
    return _norm(_wide(x) * weight, torch.ones_like(weight), eps).to(x.dtype)


def mean_over_everything(x, weight, eps=1e-5):
    """one mean square is taken of the whole tensor, the batch included.

    Tempting: x.square().mean() without an axis is right for a single vector.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean() + eps) * weight).to(x.dtype)


def each_feature_over_the_sequence(x, weight, eps=1e-5):
    """the mean is taken along the sequence, for each feature by itself, and not along the features.

    Tempting: dim=1 is the last axis of a matrix, but the sequence of a batch.
    """
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-2, keepdim=True) + eps) * weight).to(x.dtype)
