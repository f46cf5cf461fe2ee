"""The bugs that people make in decoder_layer."""

from llama import implementation

LAYERS = implementation.load("vectorized")


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
