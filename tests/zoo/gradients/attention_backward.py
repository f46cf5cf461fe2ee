"""The bugs that people make in attention_backward."""

import math

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    """Scores far above and below each other, queries that see nothing, whole blocks, many heads, other layouts."""

    def call(queries, keys, mask=None, causal=True, of=(1, 1), features=1, dtype=target.ALL[0]):
        q, k = (target.tensor(t, dtype).reshape(*of, -1, features) for t in (queries, keys))
        v = target.tensor(6 + torch.arange(k.numel()).reshape(k.shape), dtype)
        return (q + 1, q, k, v, causal, None if mask is None else target.tensor(mask)), {}

    def make(q_len=2, kv_len=3, of=(1, 1, 1), features=2):
        batch, heads, kv_heads = of
        shapes = (batch, heads, q_len), (batch, heads, q_len), (batch, kv_heads, kv_len), (batch, kv_heads, kv_len)
        lines = (torch.linspace(-1, 1 + i, math.prod(s) * features).view(*s, features) for i, s in enumerate(shapes))
        return [target.tensor(t) for t in lines]

    def lying(place):
        def probe(layer):
            args = make(3, 4, features=3)
            args[place] = args[place].mT.contiguous().mT
            return list(layer(*args))

        return probe

    def many_heads(layer):
        grad, q, k, v = make(1, 2, of=(8192, 9, 1), features=1)
        return [part.sum() for part in layer(grad, q, k, v)]

    def many_queries(layer):
        ones = target.tensor(torch.ones(1, 1, 5000, 1), torch.bfloat16)
        return list(layer(ones, ones, ones[:, :, :1], ones[:, :, :1], False))

    def of_two_dtypes(layer):
        grad, q, k, v = make()
        return list(layer(grad.bfloat16(), q.bfloat16(), k, v))

    return [
        call([1.0], [0.0, -2e4], [[False, True]]),
        call([1.0], [0.0, -2e5], [[False, True]]),
        call([1.0, 1.0], [1000.0, 0.0], [[True, True], [False, True]]),
        call([1.0, 1.0], [1.0, 2.0], [[False, False], [False, True]]),
        call([1.0, 1.0], [1.0, 2.0], [[False, True], [True, True]]),
        call([1.0] * 4, [1.0, 2.0] * 4, [[[True, False]], [[False, True]]], of=(2, 2)),
        call([1.0] * 4, [1.0, 2.0] * 2, [[True, False], [True, True]], of=(2, 1)),
        call([200.0] * 4, [200.0] * 4 + [199.0] * 4, features=4, dtype=torch.float16),
        (tuple(make(128, 128)), {}),
        (tuple(make(130, 130)), {}),
        (tuple(make(256, 256)), {}),
        again(make, lambda grad, q, k, v: [3 * grad, q, k, v]),
        *map(lying, range(4)),
        many_heads,
        many_queries,
        of_two_dtypes,
    ]


def _wide(*tensors):
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return [t.detach().to(dtype) for t in tensors]


def _visible(q, k, causal, mask, diagonal=0):
    visible = q.new_ones(q.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2] + diagonal)
    return visible if mask is None else visible & mask


def _weights(scores, visible):
    weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)
    return weights.masked_fill(~visible, 0)


def _sum(k, of_each):
    """The sum over the query heads of each key head."""
    return of_each.unflatten(1, (k.shape[1], -1)).sum(2)


def _of_scores(weights, of_weights):
    return weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))


def _gradient(
    grad,
    q,
    k,
    v,
    causal=True,
    mask=None,
    *,
    visible=None,
    weights=_weights,
    of_scores=_of_scores,
    repeat=None,
    shared=_sum,
    scale_q=1.0,
    scale_k=1.0,
    queries=None,
):
    """The gradients; what is given by name takes the place of what is right, scales and `queries` are factors."""
    towards, q_wide, k_wide, v_wide = _wide(grad, q, k, v)
    groups = q.shape[1] // k.shape[1]
    keys, values = ((repeat or (lambda t: t.repeat_interleave(groups, 1)))(t) for t in (k_wide, v_wide))
    scale = 1 / math.sqrt(q.shape[-1])
    if visible is None:
        visible = _visible(q, k, causal, mask)
    p = weights(q_wide @ keys.mT * scale, visible)
    toward_scores = of_scores(p, (towards @ values.mT).masked_fill(~visible, 0)) * scale
    grad_q = scale_q * toward_scores @ keys
    if queries is not None:  # which of them the keys and values hear of
        toward_scores, p = toward_scores * queries, p * queries
    grad_k, grad_v = (shared(k, t) for t in (scale_k * toward_scores.mT @ q_wide, p.mT @ towards))
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


def mean_left_out(grad, q, k, v, causal=True, mask=None):
    """the weighted mean is not taken away from what a score gets, as if no weight grew at the cost of others.

    Tempting: a larger score makes its own weight larger; that it makes the others smaller is easily lost.
    """
    return _gradient(grad, q, k, v, causal, mask, of_scores=lambda p, of_p: p * of_p)


def mean_without_weights(grad, q, k, v, causal=True, mask=None):
    """what is taken away from what a score gets is the plain mean over the visible keys, not the weighted one.

    Tempting: the mean is a mean, and where all weights are alike it is the same.
    """

    def of_scores(p, of_p):
        count = _visible(q, k, causal, mask).sum(-1, keepdim=True).clamp(min=1)
        return p * (of_p - of_p.sum(-1, keepdim=True) / count)

    return _gradient(grad, q, k, v, causal, mask, of_scores=of_scores)


def softmax_taken_for_a_sigmoid(grad, q, k, v, causal=True, mask=None):
    """the derivative of a weight p is taken to be p · (1 - p) with its own score, and nothing with any other.

    Tempting: it is the diagonal of the softmax's derivative, and all there is of the sigmoid's.
    """
    return _gradient(grad, q, k, v, causal, mask, of_scores=lambda p, of_p: p * (1 - p) * of_p)


def mean_divided_by_head_dim(grad, q, k, v, causal=True, mask=None):
    """what is taken away is the mean of grad · y over the features, where it should be their sum.

    Tempting: grad · y summed over the features is that weighted mean; .mean(-1) and .sum(-1) look alike.
    """

    def of_scores(p, of_p):
        return p * (of_p - (p * of_p).sum(-1, keepdim=True) / q.shape[-1])

    return _gradient(grad, q, k, v, causal, mask, of_scores=of_scores)


def scale_forgotten(grad, q, k, v, causal=True, mask=None):
    """grad_q and grad_k are not multiplied by 1 / sqrt(head_dim).

    Tempting: the weights have been made with it, and after the softmax it is out of sight.
    """
    scale = math.sqrt(q.shape[-1])
    return _gradient(grad, q, k, v, causal, mask, scale_q=scale, scale_k=scale)


def scale_forgotten_in_grad_q(grad, q, k, v, causal=True, mask=None):
    """grad_q is not multiplied by 1 / sqrt(head_dim), and grad_k is.

    Tempting: the query was scaled before the product, so that grad_k has the scale from it, and grad_q from nowhere.
    """
    return _gradient(grad, q, k, v, causal, mask, scale_q=math.sqrt(q.shape[-1]))


def scaled_twice(grad, q, k, v, causal=True, mask=None):
    """grad_q and grad_k are divided by head_dim, which is the scale twice.

    Tempting: the scores have been scaled, and so is what goes back to q and k: one of two steps for each.
    """
    scale = 1 / math.sqrt(q.shape[-1])
    return _gradient(grad, q, k, v, causal, mask, scale_q=scale, scale_k=scale)


def last_head_of_the_group_wins(grad, q, k, v, causal=True, mask=None):
    """a key head gets what the last query head of its group gives, and nothing of the others.

    Tempting: each query head writes its part to the key head that it reads, with = in place of +=.
    """
    return _gradient(grad, q, k, v, causal, mask, shared=lambda k, t: t.unflatten(1, (k.shape[1], -1))[:, :, -1])


def mean_over_the_group(grad, q, k, v, causal=True, mask=None):
    """a key head gets the mean over the query heads of its group, and not the sum.

    Tempting: checkpoints with one key head for each query head are turned into grouped ones by a mean.
    """
    return _gradient(grad, q, k, v, causal, mask, shared=lambda k, t: t.unflatten(1, (k.shape[1], -1)).mean(2))


def groups_tiled_on_the_way_back(grad, q, k, v, causal=True, mask=None):
    """what query head h gives goes to key head h % n_kv_heads, and not to h // groups, which it reads.

    Tempting: [groups n_kv_heads] and [n_kv_heads groups] have the same length, and the sum runs over either.
    Seen: XunhaoLai/native-sparse-attention-triton#27.
    """
    return _gradient(grad, q, k, v, causal, mask, shared=lambda k, t: t.unflatten(1, (-1, k.shape[1])).sum(1))


def groups_tiled(grad, q, k, v, causal=True, mask=None):
    """query head h reads key head h % n_kv_heads, there and back, and not h // groups.

    Tempting: repeat is shorter than repeat_interleave, and with one key head, or no groups, they agree.
    """
    groups = q.shape[1] // k.shape[1]
    return _gradient(
        *(grad, q, k, v, causal, mask),
        repeat=lambda t: t.repeat(1, groups, 1, 1),
        shared=lambda k, t: t.unflatten(1, (-1, k.shape[1])).sum(1),
    )


def keys_and_values_swapped(grad, q, k, v, causal=True, mask=None):
    """the gradients of keys and values are returned in each other's place.

    Tempting: both have one shape, and grad_v is what comes first on the way back.
    """
    grad_q, grad_k, grad_v = _gradient(grad, q, k, v, causal, mask)
    return grad_q, grad_v.to(k.dtype), grad_k.to(v.dtype)


def causal_forgotten(grad, q, k, v, causal=True, mask=None):
    """the weights are computed again without the causal mask.

    Tempting: the forward pass has hidden the future, and what is hidden has no part in the result.
    """
    return _gradient(grad, q, k, v, False, mask)


def mask_forgotten(grad, q, k, v, causal=True, mask=None):
    """the weights are computed again without the mask.

    Tempting: a mask is an argument of the forward pass; what comes back is multiplied by zero anyway, it seems.
    """
    return _gradient(grad, q, k, v, causal, None)


def causal_at_the_first_key(grad, q, k, v, causal=True, mask=None):
    """the causal mask is aligned at the first key, so that with a cache the newest query sees the oldest keys.

    Tempting: tril() is right where q_len is kv_len, and the forward pass has its own line for the rest.
    Seen: xlite-dev/ffpa-attn#300.
    """
    return _gradient(grad, q, k, v, visible=_visible(q, k, causal, mask, diagonal=q.shape[2] - k.shape[2]))


def itself_hidden(grad, q, k, v, causal=True, mask=None):
    """a query gives nothing to its own position, only to what came before.

    Tempting: with the rows for keys, the triangle is an upper one, and triu(1) leaves out the diagonal.
    """
    return _gradient(grad, q, k, v, visible=_visible(q, k, causal, mask, diagonal=-1))


def hidden_after_the_softmax(grad, q, k, v, causal=True, mask=None):
    """hidden weights are set to 0 after the softmax, so that the weights that are left sum to less than one.

    Tempting: a hidden key gets nothing then, which is what was asked for.
    """

    def weights(scores, visible):
        return torch.softmax(scores, dim=-1).masked_fill(~visible, 0)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def hidden_at_minus_10000(grad, q, k, v, causal=True, mask=None):
    """hidden scores are set to -10,000, which is not the lowest score where the visible ones are lower still.

    Tempting: it is far below any usual score, it fits into float16, and -inf makes NaN.
    """

    def weights(scores, visible):
        weights = torch.softmax(scores.masked_fill(~visible, -1e4), dim=-1)
        return weights.masked_fill(~visible.any(-1, keepdim=True), 0)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def nothing_visible_is_nan(grad, q, k, v, causal=True, mask=None):
    """a query that may attend to nothing makes everything that it reads NaN.

    Tempting: -inf in a softmax is right in every other row, and the sum over the queries takes all rows.
    Seen: pytorch/pytorch#41508.
    """

    def weights(scores, visible):
        return torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def nothing_visible_is_the_mean(grad, q, k, v, causal=True, mask=None):
    """a query that may attend to nothing gives its grad to all values alike.

    Tempting: the lowest finite number in place of -inf makes no NaN; but equal scores have equal weights.
    """

    def weights(scores, visible):
        return torch.softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min), dim=-1)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def largest_not_subtracted(grad, q, k, v, causal=True, mask=None):
    """exp is taken of the scores as they are, which overflows.

    Tempting: the forward pass has dealt with that already; here the weights are only made anew.
    """

    def weights(scores, visible):
        powers = torch.exp(scores).masked_fill(~visible, 0)
        total = powers.sum(-1, keepdim=True)
        return powers / total.masked_fill(total == 0, 1)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def scores_in_half_precision(grad, q, k, v, causal=True, mask=None):
    """the scores are computed in the dtype of q, which in float16 overflows above 65,504.

    Tempting: the forward pass has float32 scores inside its kernel; here a product of two tensors does it.
    """

    def weights(scores, visible):
        keys = k.to(q.dtype).repeat_interleave(q.shape[1] // k.shape[1], 1)
        products = (q @ keys.mT).to(scores.dtype)
        return _weights(products / math.sqrt(q.shape[-1]), visible)

    return _gradient(grad, q, k, v, causal, mask, weights=weights)


def queries_added_in_half_precision(grad, q, k, v, causal=True, mask=None):
    """what the queries give is added up in half precision, where bfloat16 counts no further than 256.

    Tempting: each block of queries adds its part to the result itself, which has the dtype of the values.
    """
    grad_q, grad_k, grad_v = _gradient(grad, q, k, v, causal, mask)
    if v.element_size() > 2 or q.shape[2] <= 16:
        return grad_q, grad_k, grad_v
    visible, of_k, of_v = _visible(q, k, causal, mask), torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, q.shape[2], 16):
        rows = slice(start, start + 16)
        _, more_k, more_v = _gradient(grad[:, :, rows], q[:, :, rows], k, v, visible=visible[:, :, rows])
        of_k, of_v = of_k + more_k, of_v + more_v
    return grad_q, of_k, of_v


def last_queries_lost_at_multiples_of_128(grad, q, k, v, causal=True, mask=None):
    """where 128 divides the number of queries, the last 128 of them give nothing to keys and values.

    Tempting: the last block is masked separately, with q_len % 128 queries, and here that is none.
    """
    queries = torch.ones(q.shape[2], 1, device=q.device)
    if q.shape[2] and q.shape[2] % 128 == 0:
        queries[-128:] = 0
    return _gradient(grad, q, k, v, causal, mask, queries=queries)


def queries_beyond_128_lost(grad, q, k, v, causal=True, mask=None):
    """keys and values get nothing from the queries after the first multiple of 128 within the text.

    Tempting: q_len // 128 is the number of blocks, for every length that a benchmark tries.
    """
    queries = torch.ones(q.shape[2], 1, device=q.device)
    if q.shape[2] > 128:
        queries[q.shape[2] // 128 * 128 :] = 0
    return _gradient(grad, q, k, v, causal, mask, queries=queries)


def heads_beyond_65535_left_out(grad, q, k, v, causal=True, mask=None):
    """of all heads of all batch entries, those from the 65,536th on give nothing to keys and values.

    Tempting: each head is a block of a grid, one axis of which ends at 65,535.
    """
    numbers = torch.arange(q.shape[0] * q.shape[1], device=q.device).view(*q.shape[:2], 1, 1)
    return _gradient(grad, q, k, v, causal, mask, queries=numbers < 65535)


def mask_of_the_first_entry(grad, q, k, v, causal=True, mask=None):
    """the mask of the first batch entry is used for all of them.

    Tempting: a causal mask is the same for all, and a padding mask took its place.
    """
    visible = _visible(q, k, causal, None)
    if mask is not None:
        visible = visible & torch.broadcast_to(mask, visible.shape)[:1]
    return _gradient(grad, q, k, v, visible=visible)


def mask_of_the_first_head(grad, q, k, v, causal=True, mask=None):
    """the mask of the first head is used for all of them.

    Tempting: nearly all masks are the same for every head, so one slice saves memory.
    """
    visible = _visible(q, k, causal, None)
    if mask is not None:
        visible = visible & torch.broadcast_to(mask, visible.shape)[:, :1]
    return _gradient(grad, q, k, v, visible=visible)


def mask_of_two_axes_for_padding(grad, q, k, v, causal=True, mask=None):
    """a mask [q_len kv_len] is taken for padding [batch kv_len] where there are as many entries as queries.

    Tempting: it is what a tokenizer's attention_mask looks like.
    """
    if mask is not None and mask.shape == (q.shape[0], k.shape[2]) and q.shape[0] > 1:
        mask = mask[:, None, None, :]
    return _gradient(grad, q, k, v, causal, mask)


def grad_taken_for_ones(grad, q, k, v, causal=True, mask=None):
    """grad is taken for ones, whatever comes in.

    Tempting: `y.sum().backward()` is how a gradient is tried out.
    """
    return _gradient(torch.ones_like(grad), q, k, v, causal, mask)


_BUFFERS = {}


def buffers_not_cleared(grad, q, k, v, causal=True, mask=None):
    """keys and values get what they got in earlier calls of the same shape, added up.

    Tempting: a buffer that many blocks add to is made once, and it is zero the first time.
    """
    grad_q, *found = _gradient(grad, q, k, v, causal, mask)
    key = tuple(q.shape), tuple(k.shape), k.dtype, v.dtype, k.device
    for total, part in zip(_BUFFERS.setdefault(key, [torch.zeros_like(part) for part in found]), found, strict=True):
        total += part
    return grad_q, *(total.clone() for total in _BUFFERS[key])


def gradients_of_keys_in_the_dtype_of_q(grad, q, k, v, causal=True, mask=None):
    """the gradients of keys and values have the dtype of q, also where theirs is another.

    Tempting: everything is cast back to one dtype at the end.
    """
    return tuple(t.to(q.dtype) for t in _gradient(grad, q, k, v, causal, mask))


def grad_without_its_strides(grad, q, k, v, causal=True, mask=None):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: q, k and v were made contiguous in the forward pass, and nobody thought of grad.
    Seen: Dao-AILab/flash-attention#355.
    """
    return _gradient(as_if_contiguous(grad), q, k, v, causal, mask)


def queries_without_their_strides(grad, q, k, v, causal=True, mask=None):
    """the queries are read in the order of the memory, whatever their strides.

    Tempting: a kernel takes a pointer, and most tensors are contiguous.
    """
    return _gradient(grad, as_if_contiguous(q), k, v, causal, mask)


def values_without_their_strides(grad, q, k, v, causal=True, mask=None):
    """the values are read in the order of the memory, whatever their strides.

    Tempting: keys and values mostly come out of one projection, and the strides of the keys are checked.
    """
    return _gradient(grad, q, k, as_if_contiguous(v), causal, mask)
