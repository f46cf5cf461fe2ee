"""The bugs that people make in decoder_layer_backward."""

import torch

from llama import implementation
from llama.contract.weights import DECODER_LAYER
from tests.cases import calls
from tests.cases.case import Case
from tests.zoo.kernels import again

LAYERS = implementation.load("vectorized")


def probes():
    sizes = {"batch": 2, "seq": 3, "n_kv_heads": 1, "groups": 2, "half": 2, "d_model": 6, "d_ff": 5}

    def make(dtype=torch.float32, **more):
        return list(calls.arguments("decoder_layer_backward", Case({**sizes, **more}, dtype, seed=5))[0])

    def in_another_order(layer):
        grad, x, weights, *rest = make()
        return list(layer(grad, x, dict(reversed(weights.items())), *rest))

    def large(layer):
        grad, x, *rest = make(torch.float16)
        return list(layer(grad, x.sign() * 260, *rest))

    def far_out(layer):
        *args, positions, frequencies = make(torch.bfloat16)
        return list(layer(*args, positions * 7 + 4097, frequencies))

    def afterwards(layer):
        args = make()
        found = layer(*args)
        return [args[0].clone(), *found]

    def with_eps(layer):
        return [list(layer(*make(), eps=eps)) for eps in (0.5, 1e-5)]

    return [
        in_another_order,
        large,
        far_out,
        afterwards,
        with_eps,
        again(make, lambda grad, *rest: [3 * grad, *rest]),
    ]


def _gradient(
    grad,
    x,
    weights,
    n_heads,
    n_kv_heads,
    positions,
    frequencies,
    eps=1e-5,
    *,
    first=1.0,
    second=1.0,
    attention_gets=None,
    norm=LAYERS.rms_norm,
    norm_back=LAYERS.rms_norm_backward,
    second_norm_back=None,
    second_read=None,
    block_read=None,
):
    """The gradients; what is given by name takes the place of what is right, `first` and `second` are factors."""
    w_norm, w_q, w_k, w_v, w_o, w_ffn_norm, *w_ffn = (weights[name] for name in DECODER_LAYER)
    how = w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    normed = norm(x, w_norm, eps)
    h = x + LAYERS.self_attention(normed, *how)
    normed_h = h if block_read else norm(h, w_ffn_norm, eps)
    grad_normed_h, *of_ffn = LAYERS.swiglu_backward(grad, normed_h, *w_ffn)
    back = second_norm_back or norm_back
    branch, of_ffn_norm = back(grad_normed_h, x if second_read else h, w_ffn_norm, eps)
    grad_h = second * grad + branch
    into_attention = grad_h if attention_gets is None else attention_gets
    grad_normed, *of_attention = LAYERS.self_attention_backward(into_attention, normed, *how)
    branch, of_norm = norm_back(grad_normed, x, w_norm, eps)
    gradients = of_norm, *of_attention, of_ffn_norm, *of_ffn
    return first * grad_h + branch, dict(zip(DECODER_LAYER, gradients, strict=True))


def first_residual_dropped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """x gets what comes back from attention, and nothing of what the first residual sum passes on.

    Tempting: grad = rms_norm_backward(...) overwrites grad, where it should be added to it.
    Seen: NVIDIA/Fuser#2922 (both sums).
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, first=0.0)


def second_residual_dropped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """h gets what comes back from the feed-forward block, and nothing of grad itself.

    Tempting: grad = rms_norm_backward(...) overwrites grad, where it should be added to it.
    Seen: NVIDIA/Fuser#2922 (both sums).
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, second=0.0)


def both_residuals_dropped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """x gets what comes back through both blocks, and nothing of what the two residual sums pass on.

    Tempting: a chain of layers goes back from one to the next, and a sum is no layer.
    Seen: NVIDIA/Fuser#2922.
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, first=0.0, second=0.0)


def residual_counted_twice(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """grad is added once more at the end.

    Tempting: there are two sums, and each passes grad on; but the second passes on what has come from the first.
    """
    args = grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps
    grad_x, gradients = _gradient(*args)
    return grad_x + grad, gradients


def attention_gets_grad_alone(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """attention gets grad, and not what comes back to h from the feed-forward block as well.

    Tempting: both blocks add to the result, and grad is its gradient; but the second block reads what the first adds.
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, attention_gets=grad)


def first_norm_passed_over(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what comes back from attention is added to x's gradient as it is, without the gradient of the first norm.

    Tempting: a norm changes the length alone, it seems; its weight has got its gradient.
    """
    args = grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps

    def passed_over(grad, x, weight, eps):
        return grad, LAYERS.rms_norm_backward(grad, x, weight, eps)[1]

    return _gradient(*args, norm_back=passed_over, second_norm_back=LAYERS.rms_norm_backward)


def second_norm_passed_over(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what comes back from the feed-forward block is added to h's gradient as it is, without that of the second norm.

    Tempting: a norm changes the length alone, it seems; its weight has got its gradient.
    """
    args = grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps

    def passed_over(grad, x, weight, eps):
        return grad, LAYERS.rms_norm_backward(grad, x, weight, eps)[1]

    return _gradient(*args, second_norm_back=passed_over)


def second_norm_of_x(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradient of the second norm is taken at x, and not at what attention has left.

    Tempting: x is what was kept of the forward pass.
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, second_read=True)


def feed_forward_gradient_without_its_norm(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradient of the feed-forward block is taken at h, and not at the norm of h.

    Tempting: h is what was kept of the forward pass, and the norm is dealt with a line below.
    """
    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, block_read=True)


def gradients_of_the_norms_swapped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradients of the two norms stand under each other's name.

    Tempting: "post_attention_layernorm" sounds like the norm that comes last on the way back.
    """
    grad_x, found = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    first, second = "input_layernorm.weight", "post_attention_layernorm.weight"
    return grad_x, found | {first: found[second], second: found[first]}


def gradients_of_gate_and_up_swapped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradients of w_gate and w_up stand under each other's name.

    Tempting: both have one shape, so that their order raises no error.
    """
    grad_x, found = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    gate, up = "mlp.gate_proj.weight", "mlp.up_proj.weight"
    return grad_x, found | {gate: found[up], up: found[gate]}


def gradients_of_w_k_and_w_v_swapped(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradients of w_k and w_v stand under each other's name.

    Tempting: both have one shape, so that their order raises no error.
    """
    grad_x, found = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    w_k, w_v = "self_attn.k_proj.weight", "self_attn.v_proj.weight"
    return grad_x, found | {w_k: found[w_v], w_v: found[w_k]}


def gradients_named_in_the_order_of_the_mapping(
    grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5
):
    """the gradients get the names of the weights one after the other, in the order in which the mapping has them.

    Tempting: zip(weights, gradients) is one line, and a checkpoint has them in one order.
    """
    grad_x, found = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    return grad_x, dict(zip(weights, found.values(), strict=True))


def eps_ignored(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both norms keep their default eps on the way back, whatever is passed.

    Tempting: rms_norm_backward(grad, x, weight) runs without a fourth argument.
    """
    args = grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps
    return _gradient(*args, norm_back=lambda grad, x, weight, eps: LAYERS.rms_norm_backward(grad, x, weight))


def added_in_place(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what comes back from the blocks is added with +=, which overwrites the grad of the caller.

    Tempting: += looks like a shorter grad = grad + ..., and saves memory; the result is right.
    """
    grad_x, gradients = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    grad.copy_(grad_x)
    return grad, gradients


_TOTALS = {}


def gradients_accumulated(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the gradients of the weights are added to those of earlier calls with weights of the same shapes.

    Tempting: it is what `.grad` does in torch.
    """
    grad_x, found = _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    key = tuple(tuple(w.shape) for w in found.values()), grad.dtype, grad.device
    before = _TOTALS.get(key, {})
    _TOTALS[key] = {name: g + before[name] if before else g for name, g in found.items()}
    return grad_x, {name: g.clone() for name, g in _TOTALS[key].items()}


def squares_in_half_precision(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both norms square in the dtype of x on the way there, so that in float16 anything above 255 overflows.

    Tempting: the norm is computed again by hand, in a line, and rms_norm_backward has its float32 inside.
    """

    def norm(x, weight, eps):
        wide = torch.promote_types(x.dtype, torch.float32)
        mean_square = x.square().to(wide).mean(-1, keepdim=True)
        return (x.to(wide) * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)

    return _gradient(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps, norm=norm)


def positions_in_the_dtype_of_x(grad, x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """positions are rounded to the dtype of x, where bfloat16 cannot tell 1001 from 1000.

    Tempting: whatever enters the layer is brought to one dtype at its top.
    """
    at = positions.to(x.dtype).long()
    return _gradient(grad, x, weights, n_heads, n_kv_heads, at, frequencies, eps)
