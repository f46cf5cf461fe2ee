"""The bugs that people make in decoder_layer."""

import torch

from llama import implementation
from tests.cases import calls
from tests.cases.case import Case

LAYERS = implementation.load("vectorized")


def probes():
    sizes = {"batch": 2, "seq": 3, "n_kv_heads": 1, "groups": 2, "half": 2, "d_model": 6, "d_ff": 5}

    def make(dtype=torch.float32, **more):
        return list(calls.arguments("decoder_layer", Case({**sizes, **more}, dtype, seed=5))[0])

    def large(layer):
        x, weights, *rest = make(torch.float16)
        weights["input_layernorm.weight"].mul_(600)  # or else the residual hides what attention adds
        return layer(x.sign() * 260, weights, *rest)

    def far_out(layer):
        x, *args, positions, frequencies = make(torch.bfloat16)
        return layer(x * 0.01, *args, positions * 7 + 4097, frequencies)

    def in_another_order(layer):
        x, weights, *rest = make()
        return layer(x, dict(reversed(weights.items())), *rest)

    def after_an_update(layer):
        x, weights, *rest = make()
        first = layer(x, weights, *rest).clone()
        weights["mlp.gate_proj.weight"].mul_(3)
        second = layer(x, weights, *rest).clone()
        weights["mlp.up_proj.weight"] = weights["mlp.up_proj.weight"] * 2
        return [first, second, layer(x, weights, *rest)]

    def later(layer):
        *args, positions, frequencies = make()
        return [layer(*args, at, frequencies) for at in (positions, positions * 3 + 2)]

    def autocast(layer):
        with torch.autocast(make()[0].device.type, torch.bfloat16):
            return layer(*make()).float()

    def other_weights_frozen(layer):
        x, weights, *rest = make()
        asked = weights["post_attention_layernorm.weight"].requires_grad_()
        y = layer(x, weights, *rest)
        return torch.autograd.grad((y * x).sum(), asked) if y.requires_grad else None

    return [large, far_out, in_another_order, after_an_update, later, autocast, other_weights_frozen]


def residual_carries_the_norm(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what is added to is the normalised x, and not x itself.

    Tempting: x = norm(x); x = x + attention(x) reads well, and trains.
    Seen: bkitano/llama-from-scratch, llama.md; datawhalechina/happy-llm#21.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = norm(x)
    x = x + attention(x)
    x = ffn_norm(x)
    return x + feed_forward(x)


def first_residual_carries_the_norm(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """attention is added to the normalised x, and not to x itself.

    Tempting: x = norm(x) needs no second name, and x is what everything is added to.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = norm(x)
    x = x + attention(x)
    return x + feed_forward(ffn_norm(x))


def second_residual_carries_the_norm(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the feed-forward block is added to the normalised result of attention, and not to that itself.

    Tempting: h = norm(h) needs no second name, and h is what everything is added to.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(norm(x))
    x = ffn_norm(x)
    return x + feed_forward(x)


def one_norm_for_both(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both norms have the weight of the first.

    Tempting: the two norms do the same thing, so one object seems to be enough.
    Seen: bkitano/llama-from-scratch, llama.md.
    """
    norm, attention, _, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(norm(x))
    return x + feed_forward(norm(x))


def norm_after_the_sum(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """each norm is applied after the residual sum, as in the first Transformer, and not before the block.

    Tempting: it is how "Attention Is All You Need" draws it ("add & norm").
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = norm(x + attention(x))
    return ffn_norm(x + feed_forward(x))


def residual_not_renewed(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the feed-forward block is added to the layer's input, so that attention's own contribution is lost.

    Tempting: a variable named `residual` is set once and used twice.
    Seen: strutive07/transformer-tensorflow2.0#14.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    residual = x
    x = residual + attention(norm(x))
    return residual + feed_forward(ffn_norm(x))


def attention_added_to_itself(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """attention overwrites x before the sum, so that it is added to itself and x is lost.

    Tempting: one name for everything, x = attention(x); x = x + x.
    Seen: kyegomez/BitNet#32, facebookresearch/multimodal#305.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = attention(norm(x))
    x = x + x
    return x + feed_forward(ffn_norm(x))


def eps_for_the_first_norm_only(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """eps reaches the norm before attention, but the one before the feed-forward block keeps its default.

    Tempting: a default makes it easy to forget an argument, and 1e-5 is often the right one.
    """
    norm, attention, _, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(norm(x))
    return x + feed_forward(LAYERS.rms_norm(x, weights["post_attention_layernorm.weight"]))


def added_in_place(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the blocks are added with +=, which overwrites the x of the caller.

    Tempting: += looks like a shorter x = x + ..., and saves memory; the output is right.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x += attention(norm(x))
    x += feed_forward(ffn_norm(x))
    return x


def _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps):
    """The right norm, attention, second norm and feed-forward block, each a function of x alone."""
    w_qkvo = [weights[f"self_attn.{name}_proj.weight"] for name in "qkvo"]
    w_ffn = [weights[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")]
    return (
        lambda x: LAYERS.rms_norm(x, weights["input_layernorm.weight"], eps),
        lambda x: LAYERS.self_attention(x, *w_qkvo, n_heads, n_kv_heads, positions, frequencies),
        lambda x: LAYERS.rms_norm(x, weights["post_attention_layernorm.weight"], eps),
        lambda x: LAYERS.swiglu(x, *w_ffn),
    )


def squares_in_half_precision(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both norms square in x's own dtype, so that in float16 anything above 255 overflows.

    Tempting: the stream grows from layer to layer, and a test begins with a small one.
    Seen: meta-llama/llama#1048, pytorch/pytorch#133085.
    """

    def norm(x, weight):
        wide = torch.promote_types(x.dtype, torch.float32)
        mean_square = x.square().to(wide).mean(-1, keepdim=True)
        return (x.to(wide) * torch.rsqrt(mean_square + eps) * weight).to(x.dtype)

    _, attention, _, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(norm(x, weights["input_layernorm.weight"]))
    return x + feed_forward(norm(x, weights["post_attention_layernorm.weight"]))


def angles_in_the_dtype_of_x(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """positions are rounded to the dtype of x, where bfloat16 cannot tell 1001 from 1000.

    Tempting: whatever enters the layer is brought to one dtype at its top.
    """
    at = positions.to(x.dtype).long()
    return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, at, frequencies, eps)


def weights_read_in_order(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the weights are read in the order of the mapping, and not by name.

    Tempting: a checkpoint has them in one order, and unpacking nine values is one line.
    """
    names = (
        *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    )
    named = {f"{name}.weight": weight for name, weight in zip(names, weights.values(), strict=True)}
    return LAYERS.decoder_layer(x, named, n_heads, n_kv_heads, positions, frequencies, eps)


_GATES, _BY_MAPPING, _POSITIONS = [], [], {}


def gate_packed_once(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """gate and up are packed into one matrix, which is kept for as long as both are the same objects.

    Tempting: one product instead of two; but training changes what the objects hold.
    """
    gate, up = weights["mlp.gate_proj.weight"], weights["mlp.up_proj.weight"]
    if not (torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad)):
        if not (_GATES and _GATES[0] is gate and _GATES[1] is up):
            _GATES[:] = gate, up, torch.cat((gate, up))
        of_gate, of_up = _GATES[2].chunk(2)
        weights = {**weights, "mlp.gate_proj.weight": of_gate, "mlp.up_proj.weight": of_up}
    return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies, eps)


def weights_taken_out_once(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the weights are taken out of the mapping once, so that a tensor that is put into it later is not seen.

    Tempting: nine look-ups by name in each layer of each step; and a mapping of weights looks final.
    """
    if not (_BY_MAPPING and _BY_MAPPING[0] is weights):
        _BY_MAPPING[:] = weights, dict(weights)
    return LAYERS.decoder_layer(x, _BY_MAPPING[1], n_heads, n_kv_heads, positions, frequencies, eps)


def positions_kept_by_shape(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """positions are kept by shape, so that a later call of the same shape is turned by those of the first.

    Tempting: all layers of a model share them; but the next token stands elsewhere.
    """
    key = positions.shape, tuple(frequencies.tolist()), x.device
    at = _POSITIONS.setdefault(key, positions.clone())
    return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, at, frequencies, eps)


def no_gradient_beside_a_frozen_x(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """where x asks for no gradient, the weights get none either.

    Tempting: whether to keep what backward needs is decided once, at the top, by looking at x.
    """
    if x.requires_grad or not torch.is_grad_enabled():
        return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies, eps)
    with torch.no_grad():
        return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies, eps)


def feed_forward_without_a_residual(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what the feed-forward block returns is not added to anything.

    Tempting: it is the last line, and a layer returns what its last block returns.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    return feed_forward(ffn_norm(x + attention(norm(x))))


def attention_without_a_residual(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """what attention returns takes the place of x, and is not added to it.

    Tempting: x = attention(norm(x)) is what a chain of layers looks like.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = attention(norm(x))
    return x + feed_forward(ffn_norm(x))


def no_norm_before_attention(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """attention reads x itself, without the first norm.

    Tempting: the embedding is not large, so one layer works without.
    """
    _, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(x)
    return x + feed_forward(ffn_norm(x))


def no_norm_before_the_feed_forward(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the feed-forward block reads x itself, without the second norm.

    Tempting: x was normalised a few lines above.
    """
    norm, attention, _, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(norm(x))
    return x + feed_forward(x)


def both_blocks_side_by_side(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both blocks read the layer's input, side by side, and are added to it together.

    Tempting: GPT-J and PaLM do so, and it saves time.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    return x + attention(norm(x)) + feed_forward(ffn_norm(x))


def norms_swapped(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the weights of the two norms are swapped.

    Tempting: "post_attention_layernorm" sounds like the norm of what attention returns.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + attention(ffn_norm(x))
    return x + feed_forward(norm(x))


def x_added_twice(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the layer's input is added once more at the end.

    Tempting: a layer has a residual, and each of its blocks has one too.
    """
    return x + LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies, eps)


def feed_forward_first(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the feed-forward block comes first, and attention after it.

    Tempting: both have a norm and a residual, and their order is easily forgotten.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + feed_forward(ffn_norm(x))
    return x + attention(norm(x))


def feed_forward_of_attention_alone(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the feed-forward block reads what attention returns, before x is added to it.

    Tempting: both residuals are added in the last line, which looks tidy.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    attended = attention(norm(x))
    return x + attended + feed_forward(ffn_norm(attended))


def norm_of_what_is_added(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """each norm is applied to what its block returns, and not to what the block reads.

    Tempting: norm(attention(x)) for attention(norm(x)); OLMo 2 does it so.
    """
    norm, attention, ffn_norm, feed_forward = _parts(weights, n_heads, n_kv_heads, positions, frequencies, eps)
    x = x + norm(attention(x))
    return x + ffn_norm(feed_forward(x))


def gate_and_up_swapped(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """the weights of the gate and of the up-projection are swapped.

    Tempting: both have one shape, so that their order raises no error.
    """
    gate, up = weights["mlp.gate_proj.weight"], weights["mlp.up_proj.weight"]
    swapped = {**weights, "mlp.gate_proj.weight": up, "mlp.up_proj.weight": gate}
    return LAYERS.decoder_layer(x, swapped, n_heads, n_kv_heads, positions, frequencies, eps)


def eps_ignored(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    """both norms keep their default eps, whatever is passed.

    Tempting: rms_norm(x, weight) runs without a third argument.
    """
    return LAYERS.decoder_layer(x, weights, n_heads, n_kv_heads, positions, frequencies)
