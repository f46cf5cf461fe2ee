"""The bugs that people make in self_attention."""

import math

import torch

from llama import implementation
from tests.cases import calls
from tests.cases.case import Case
from tests.zoo.kernels import again, as_if_contiguous, gradients


def probes():
    # As many features as the heads have together, so that a matrix may also be read the wrong way round.
    sizes = {"batch": 2, "seq": 3, "n_kv_heads": 2, "groups": 1, "half": 2, "d_model": 8, "d_ff": 3}

    def make(dtype=torch.float32, seed=3, **more):
        args, _ = calls.arguments("self_attention", Case({**sizes, **more}, dtype, seed))
        return list(args)

    def at_other_positions(x, *rest):
        return [x, *rest[:-2], rest[-2] * 2 + 1, rest[-1]]

    def another_query_weight(x, w_q, *rest):
        return [x, w_q.mul_(3), *rest]

    def far_out(layer):
        *args, positions, frequencies = make(torch.bfloat16)
        return layer(*args, positions + 1001, frequencies)

    def from_the_side(layer):
        x, *rest = make()
        return layer(x.transpose(0, 1).contiguous().transpose(0, 1), *rest)

    def autocast(layer):
        *args, positions, frequencies = make()
        with torch.autocast(args[0].device.type, torch.bfloat16):
            return layer(*args, positions + 1001, frequencies).float()

    return [
        calls.arguments("self_attention", Case(dict(sizes), torch.float64, seed=3)),
        (tuple(make(seq=32)), {}),
        again(make, at_other_positions),
        again(make, another_query_weight),
        far_out,
        from_the_side,
        autocast,
        gradients(make, of=(2, 3)),
        gradients(make, of=(0,)),
    ]


LAYERS = implementation.load("vectorized")


def _split(x, w, n_heads):
    return LAYERS.linear(x, w).unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _merge(heads, w_o):
    return LAYERS.linear(heads.transpose(1, 2).flatten(2), w_o)


def values_rotated(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the values are rotated too, not only queries and keys.

    Tempting: q, k and v come out of the same three lines, so a fourth, fifth and sixth line turn them.
    Seen: bkitano/llama-from-scratch, llama.ipynb.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k, v = (LAYERS.rope(t, positions, frequencies) for t in (q, k, v))
    return _merge(LAYERS.attention(q, k, v), w_o)


def rotation_unused(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """nothing is rotated: attention gets the queries and keys as they were before rope.

    Tempting: the turned ones have new names, and the old names are passed on. It still trains.
    Seen: bkitano/llama-from-scratch, llama.md.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    return _merge(LAYERS.attention(q, k, v), w_o)


def keys_not_rotated(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """only the queries are rotated, and the keys are not.

    Tempting: a query has to know where it stands, and it is easy to think that this is enough.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    return _merge(LAYERS.attention(LAYERS.rope(q, positions, frequencies), k, v), w_o)


def positions_counted_from_zero(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """positions are counted 0, 1, 2 ... along the sequence, whatever is given.

    Tempting: only distances matter, so for positions without gaps it is the same thing.
    """
    in_order = torch.arange(x.shape[1], device=x.device)
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, in_order, frequencies)


def split_without_transpose(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the projections are viewed as [batch heads seq head_dim] at once, so that a head gets features of several tokens.

    Tempting: the shape is the right one, and view(batch, seq, heads, head_dim) with a transpose looks like a detour.
    Seen: reczoo/FuxiCTR#30.
    """
    batch, seq, _ = x.shape
    head_dim = w_q.shape[0] // n_heads
    q = LAYERS.linear(x, w_q).reshape(batch, n_heads, seq, head_dim)
    k = LAYERS.linear(x, w_k).reshape(batch, n_kv_heads, seq, head_dim)
    v = LAYERS.linear(x, w_v).reshape(batch, n_kv_heads, seq, head_dim)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return _merge(LAYERS.attention(q, k, v), w_o)


def merged_without_transpose(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the heads are merged without swapping heads and seq back, so that one token gets what belongs to others.

    Tempting: reshape takes any layout without a complaint, and the shape is right.
    Seen: jsbaan/transformer-from-scratch#6.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return LAYERS.linear(LAYERS.attention(q, k, v).reshape(*x.shape[:2], w_q.shape[0]), w_o)


def heads_interleaved(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """a head is every n_heads-th row of the weights, instead of head_dim rows in a block.

    Tempting: [head_dim heads] is as good an order as [heads head_dim], as long as nobody else's weights are loaded.
    """

    def split(w, n):
        return LAYERS.linear(x, w).unflatten(-1, (-1, n)).permute(0, 3, 1, 2)

    q, k, v = split(w_q, n_heads), split(w_k, n_kv_heads), split(w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return LAYERS.linear(LAYERS.attention(q, k, v).permute(0, 2, 3, 1).flatten(2), w_o)


def not_causal(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """every token sees the later ones: attention is not causal.

    Tempting: most attention functions see everything unless they are told otherwise; the loss only gets better.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return _merge(LAYERS.attention(q, k, v, causal=False), w_o)


def causal_by_position(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """who may see whom is decided by the given positions, not by the order in the sequence.

    Tempting: positions[q] >= positions[k] is short, and the same thing where positions rise.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    earlier = (positions[..., :, None] >= positions[..., None, :]).unsqueeze(-3)
    return _merge(LAYERS.attention(q, k, v, causal=False, mask=earlier), w_o)


def scaled_by_d_model(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """scores are divided by the square root of d_model, not of head_dim.

    Tempting: with one head the two are the same, and d_model is at hand as the width of x.
    Seen: karpathy/ng-video-lecture#6.
    """
    head_dim, d_model = w_q.shape[0] // n_heads, x.shape[-1]
    w_q = math.sqrt(head_dim / d_model) * w_q
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


def residual_added(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x is added to the result: the residual belongs to the decoder layer, which then adds it twice.

    Tempting: many drawings of attention have the skip connection inside the box.
    """
    return x + LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


def w_o_not_transposed(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the heads are multiplied by w_o instead of its transpose.

    Tempting: [in out] is how one writes it on paper, and where n_heads * head_dim is d_model both fit.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return LAYERS.attention(q, k, v).transpose(1, 2).flatten(2) @ w_o


_ANGLES = {}


def angles_kept_by_shape(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """positions are kept by shape, so that a later call of the same shape is turned by those of the first.

    Tempting: all layers of a model share them; but the next token stands elsewhere.
    """
    key = positions.shape, tuple(frequencies.tolist()), x.device
    at = _ANGLES.setdefault(key, positions.clone())
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, at, frequencies)


_PACKED = []


def projections_packed_once(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """w_q, w_k and w_v are packed into one matrix, which is kept for as long as they are the same objects.

    Tempting: one product instead of three; but training, or loading a checkpoint, changes what the objects hold.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, w_q, w_k, w_v, w_o)):
        return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)
    if not (_PACKED and all(a is b for a, b in zip(_PACKED, (w_q, w_k, w_v), strict=False))):
        _PACKED[:] = w_q, w_k, w_v, torch.cat((w_q, w_k, w_v))
    parts = _PACKED[3].split([len(w_q), len(w_k), len(w_v)])
    return LAYERS.self_attention(x, *parts, w_o, n_heads, n_kv_heads, positions, frequencies)


def positions_in_the_dtype_of_x(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """positions are rounded to the dtype of x, where bfloat16 cannot tell 1001 from 1000.

    Tempting: whatever enters the layer is brought to one dtype at its top.
    """
    at = positions.to(x.dtype).long()
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, at, frequencies)


def angles_in_the_dtype_of_autocast(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """within autocast the frequencies are rounded to its dtype before they are multiplied by the positions.

    Tempting: whatever meets the projected queries is brought to their dtype.
    Seen: huggingface/transformers#29285.
    """
    if torch.is_autocast_enabled(x.device.type):
        frequencies = frequencies.to(torch.get_autocast_dtype(x.device.type))
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


def strides_of_x_ignored(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x is read in the order of its memory, which is another where [seq batch] is seen as [batch seq].

    Tempting: x comes out of a norm, and norms return what is contiguous.
    """
    return LAYERS.self_attention(as_if_contiguous(x), w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


def no_gradient_beside_a_frozen_w_q(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """w_k and w_v have a gradient only where w_q asks for one.

    Tempting: the three are one matrix in the kernel, which asks the first of them.
    """
    if not w_q.requires_grad:
        w_k, w_v = w_k.detach(), w_v.detach()
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


def not_causal_at_multiples_of_32(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """where 32 divides the length of the sequence, every token sees the later ones.

    Tempting: a template for even sizes leaves out the test at the edge, and with it the one at the diagonal.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return _merge(LAYERS.attention(q, k, v, causal=x.shape[1] == 0 or x.shape[1] % 32 != 0), w_o)


def queries_not_rotated(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """only the keys are rotated, and the queries are not.

    Tempting: the keys are what is looked at, so that they seem to be what needs a place.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    return _merge(LAYERS.attention(q, LAYERS.rope(k, positions, frequencies), v), w_o)


def values_projected_by_w_k(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the values are projected by w_k, and not by w_v.

    Tempting: the line for the keys is copied, and one letter of it stays as it was.
    """
    return LAYERS.self_attention(x, w_q, w_k, w_k, w_o, n_heads, n_kv_heads, positions, frequencies)


def w_k_and_w_v_swapped(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """w_k makes the values and w_v the keys.

    Tempting: both have one shape, so that their order raises no error.
    """
    return LAYERS.self_attention(x, w_q, w_v, w_k, w_o, n_heads, n_kv_heads, positions, frequencies)


def w_o_forgotten(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the merged heads are returned as they are, without w_o.

    Tempting: attention seems to be over when the heads are merged, and the width is often d_model already.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return LAYERS.attention(q, k, v).transpose(1, 2).flatten(2)


def merged_feature_by_feature(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the heads are merged feature by feature: the first feature of each head, then the second of each.

    Tempting: permute(0, 2, 3, 1) brings the sequence forward too, and the width is the right one.
    """
    q, k, v = _split(x, w_q, n_heads), _split(x, w_k, n_kv_heads), _split(x, w_v, n_kv_heads)
    q, k = LAYERS.rope(q, positions, frequencies), LAYERS.rope(k, positions, frequencies)
    return LAYERS.linear(LAYERS.attention(q, k, v).permute(0, 2, 3, 1).flatten(2), w_o)


def scaled_twice(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the queries are divided by the square root of head_dim here, and attention divides the scores by it again.

    Tempting: the scale belongs to attention, and each of two functions seems to be the place for it.
    """
    w_q = w_q / math.sqrt(w_q.shape[0] // n_heads)
    return LAYERS.self_attention(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)
