"""The bugs that people make in self_attention_backward."""

import torch

from llama import implementation
from tests.cases import calls
from tests.cases.case import Case
from tests.zoo.kernels import again, as_if_contiguous

LAYERS = implementation.load("vectorized")


def probes():
    # As many features as the heads have together, so that a matrix may also be read the wrong way round.
    sizes = {"batch": 2, "seq": 3, "n_kv_heads": 2, "groups": 1, "half": 2, "d_model": 8, "d_ff": 3}

    def make(dtype=torch.float32, **more):
        return list(calls.arguments("self_attention_backward", Case({**sizes, **more}, dtype, seed=3))[0])

    def another_x(grad, x, *rest):
        return [grad, x.mul_(3), *rest]

    def far_out(layer):
        *args, positions, frequencies = make(torch.bfloat16)
        return list(layer(*args, positions + 1001, frequencies))

    def from_the_side(layer):
        grad, *rest = make()
        return list(layer(grad.transpose(0, 1).contiguous().transpose(0, 1), *rest))

    return [
        calls.arguments("self_attention_backward", Case(dict(sizes), torch.float64, seed=3)),
        again(make, another_x),
        again(make, lambda grad, *rest: [3 * grad, *rest]),
        far_out,
        from_the_side,
    ]


def _split(rows, heads):
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merged(heads):
    return heads.transpose(1, 2).flatten(2)


def _turned_back(gradient, positions, frequencies):
    return LAYERS.rope_backward(gradient, positions, frequencies)


def _gradient(
    grad,
    x,
    w_q,
    w_k,
    w_v,
    w_o,
    n_heads,
    n_kv_heads,
    positions,
    frequencies,
    *,
    turn=LAYERS.rope,
    back_q=_turned_back,
    back_k=_turned_back,
    back_v=None,
    causal=True,
    split_back=_split,
    merge_back=_merged,
    through_w_o=None,
    of_x=sum,
    at=None,
):
    """The gradients; what is given by name takes the place of what is right."""
    q, k, v = (_split(LAYERS.linear(x, w), n) for w, n in ((w_q, n_heads), (w_k, n_kv_heads), (w_v, n_kv_heads)))
    q, k = turn(q, positions, frequencies), turn(k, positions, frequencies)
    heads = _merged(LAYERS.attention(q, k, v))
    grad_heads, grad_w_o = LAYERS.linear_backward(grad, heads, w_o)
    if through_w_o is not None:
        grad_heads = LAYERS.linear_backward(grad, heads, through_w_o)[0]
    grad_q, grad_k, grad_v = LAYERS.attention_backward(split_back(grad_heads, n_heads), q, k, v, causal)
    turns = positions if at is None else at, frequencies
    grad_q, grad_k = back_q(grad_q, *turns), back_k(grad_k, *turns)
    grad_v = back_v(grad_v, *turns) if back_v else grad_v
    found = [LAYERS.linear_backward(merge_back(g), x, w) for g, w in ((grad_q, w_q), (grad_k, w_k), (grad_v, w_v))]
    return of_x([part for part, _ in found]), *(of_weight for _, of_weight in found), grad_w_o


def not_turned_back(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back to queries and keys is not turned back.

    Tempting: rope has no weights, and what has none is easily passed over on the way back.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, back_q=lambda g, *_: g, back_k=lambda g, *_: g)


def turned_the_same_way(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back to queries and keys is turned forward once more, and not back.

    Tempting: the derivative of a linear layer is the layer; but backwards it is transposed.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, back_q=LAYERS.rope, back_k=LAYERS.rope)


def keys_not_turned_back(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back to the queries is turned back, and what comes back to the keys is not.

    Tempting: one line for the queries, and its copy for the keys is forgotten.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, back_k=lambda g, *_: g)


def values_turned_back(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back to the values is turned back too.

    Tempting: attention_backward returns three gradients, and one loop over all of them is short.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, back_v=_turned_back)


def weights_without_rope(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """attention is computed again from queries and keys that are not turned.

    Tempting: what is kept of the forward pass are the projections, and rope is applied to them on the way.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, turn=lambda t, *_: t)


def turned_back_by_the_order(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """queries and keys are turned back by 0, 1, 2 ... along the sequence, whatever positions are given.

    Tempting: only distances matter in a score; but what was turned by a position is to be turned back by it.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, at=torch.arange(x.shape[1], device=x.device))


def values_left_out_of_x(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x gets nothing by way of the values, only by queries and keys.

    Tempting: the two that are turned go together, and their sum looks finished.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, of_x=lambda parts: parts[0] + parts[1])


def last_way_wins(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x gets what comes by way of the values, and nothing by queries and keys.

    Tempting: three calls return a grad_x each, and each overwrites the one before.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, of_x=lambda parts: parts[2])


def mean_of_the_three_ways(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x gets the mean of what comes by way of queries, keys and values, and not the sum.

    Tempting: three gradients of one x look like three opinions.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, of_x=lambda parts: sum(parts) / 3)


def not_causal_on_the_way_back(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the way back is not causal, so that a token gives something to later ones.

    Tempting: the forward pass is, and the mask is one more argument to be passed on.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, causal=False)


def split_without_transpose(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back from w_o is viewed as [batch heads seq head_dim] at once, which mixes tokens and heads.

    Tempting: the shape is the right one, and view(batch, seq, heads, head_dim) with a transpose looks like a detour.
    """

    def split_back(rows, heads):
        return rows.reshape(len(rows), heads, rows.shape[1], rows.shape[2] // heads)

    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, split_back=split_back)


def merged_without_transpose(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """what comes back to queries, keys and values is merged without swapping heads and seq back.

    Tempting: reshape takes any layout without a complaint, and the shape is right.
    """

    def merge_back(heads):
        return heads.reshape(len(heads), heads.shape[2], heads.shape[1] * heads.shape[3])

    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, merge_back=merge_back)


def w_o_the_wrong_way_round(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """where w_o is square, what comes back is multiplied by it as in the forward pass, and not by its transpose.

    Tempting: linear(grad, w_o) is at hand, and where n_heads · head_dim is d_model it runs.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    return _gradient(*args, through_w_o=w_o.T if w_o.shape[0] == w_o.shape[1] else None)


def gradients_of_w_k_and_w_v_swapped(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the gradients of w_k and w_v are returned in each other's place.

    Tempting: both have one shape, so that their order raises no error.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    grad_x, of_q, of_k, of_v, of_o = _gradient(*args)
    return grad_x, of_q, of_v, of_k, of_o


def weights_averaged_over_the_batch(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the gradients of the weights are means over the batch entries, and not sums.

    Tempting: the loss is a mean over the batch; but grad has that factor already.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    grad_x, *of_weights = _gradient(*args)
    return grad_x, *(g / max(1, len(x)) for g in of_weights)


def residual_added(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """grad is added to grad_x: the residual belongs to the decoder layer, which then adds it twice.

    Tempting: many drawings of attention have the skip connection inside the box.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    grad_x, *of_weights = _gradient(*args)
    return grad_x + grad, *of_weights


_FORWARD = []


def projections_of_an_earlier_x(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """x is what it was when this x and w_q came first, for as long as they are the same objects.

    Tempting: forward and backward of one layer follow each other, so what the first computes is kept for the second.
    """
    if not (_FORWARD and _FORWARD[0] is x and _FORWARD[1] is w_q):
        _FORWARD[:] = x, w_q, x.clone()
    return _gradient(grad, _FORWARD[2], w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)


_TOTALS = {}


def weights_accumulated(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """the gradients of the weights are added to those of earlier calls of the same shapes.

    Tempting: it is what `.grad` does in torch.
    """
    args = grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies
    grad_x, *found = _gradient(*args)
    key = tuple(tuple(t.shape) for t in (x, w_q, w_k)), n_heads, x.dtype, x.device
    totals = _TOTALS.setdefault(key, [torch.zeros_like(g) for g in found])
    for total, part in zip(totals, found, strict=True):
        total += part
    return grad_x, *(total.clone() for total in totals)


def positions_in_the_dtype_of_x(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """positions are rounded to the dtype of x, where bfloat16 cannot tell 1001 from 1000.

    Tempting: whatever enters the layer is brought to one dtype at its top.
    """
    at = positions.to(x.dtype).long()
    return _gradient(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, at, frequencies)


def grad_without_its_strides(grad, x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """grad is read in the order of its memory, which is another where [seq batch] is seen as [batch seq].

    Tempting: x was made contiguous in the forward pass, and nobody thought of grad.
    """
    return _gradient(as_if_contiguous(grad), x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies)
