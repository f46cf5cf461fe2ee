"""The bugs that people make in rms_norm."""

import torch
import torch.nn.functional as F

from tests.cases import target


def probes():
    large, weight = target.tensor([[1000.0, -1000.0]]), target.tensor([1.0, 1.0])
    return [((large.half(), weight.half()), {}), ((large.to(torch.bfloat16), weight), {})]


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
