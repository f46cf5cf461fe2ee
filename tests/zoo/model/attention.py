"""The bugs that people make in attention."""

import math

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous, gradients, with_gradient

_TILE = 4  # of those that take the keys some at a time


def _repeat(q, k):
    """Keys or values, one for each query head, in at least float32."""
    k = k.to(torch.promote_types(k.dtype, torch.float32))
    return k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)


def _products(q, k):
    k = _repeat(q, k)
    return q.to(k.dtype) @ k.transpose(-2, -1)


def _scores(q, k):
    return _products(q, k) / math.sqrt(q.shape[-1])


def _visible(q, k, causal, mask, diagonal=0):
    visible = q.new_ones(q.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2] + diagonal)
    return visible if mask is None else visible & mask


def _softmax(scores, visible, dim=-1):
    scores = scores.masked_fill(~visible, -torch.inf)
    largest = scores.amax(dim=dim, keepdim=True).detach()
    return _normalised(torch.exp(scores - largest.masked_fill(largest == -torch.inf, 0)), dim)


def _normalised(powers, dim=-1):
    total = powers.sum(dim=dim, keepdim=True)
    return powers / total.masked_fill(total == 0, 1)


def _zero_where_empty(weights, visible):
    return weights.masked_fill(~visible.any(dim=-1, keepdim=True), 0)


def _mix(q, v, weights):
    return (weights @ _repeat(q, v)).to(q.dtype)


def _attend(q, k, v, visible):
    return _mix(q, v, _softmax(_scores(q, k), visible))


def scale_forgotten(q, k, v, causal=True, mask=None):
    """the scores are not scaled at all.

    Tempting: a scale changes no order, and with small features the softmax looks the same.
    Seen: mlc-ai/mlc-llm#3426.
    """
    return _mix(q, v, _softmax(_products(q, k), _visible(q, k, causal, mask)))


def scaled_by_head_dim(q, k, v, causal=True, mask=None):
    """the scores are divided by head_dim, not by its square root.

    Tempting: dividing a sum of n products by n is a mean; only their spread grows like the root.
    """
    return _mix(q, v, _softmax(_products(q, k) / q.shape[-1], _visible(q, k, causal, mask)))


def scaled_by_all_heads(q, k, v, causal=True, mask=None):
    """the scores are divided by the square root of the width of all heads together, not of one head.

    Tempting: that width is d_model in most models, and "d" in the formula of the paper.
    Seen: omihub777/ViT-CIFAR#12.
    """
    scores = _products(q, k) / math.sqrt(q.shape[1] * q.shape[-1])
    return _mix(q, v, _softmax(scores, _visible(q, k, causal, mask)))


def scaled_by_n_heads(q, k, v, causal=True, mask=None):
    """the scores are divided by the square root of the number of heads, not of head_dim.

    Tempting: shape[1] for shape[-1], or one config entry for the other.
    Seen: tenstorrent/tt-metal#56789.
    """
    return _mix(q, v, _softmax(_products(q, k) / math.sqrt(q.shape[1]), _visible(q, k, causal, mask)))


def scale_upside_down(q, k, v, causal=True, mask=None):
    """the scores are multiplied by the square root of head_dim instead of divided by it.

    Tempting: a scale that is already head_dim to the power -1/2 is divided by once more.
    Seen: esceptico/perceiver-io#9.
    """
    return _mix(q, v, _softmax(_products(q, k) * math.sqrt(q.shape[-1]), _visible(q, k, causal, mask)))


def keys_reshaped(q, k, v, causal=True, mask=None):
    """the keys are reshaped to [head_dim kv_len] instead of transposed, which mixes features of several positions.

    Tempting: both give the shape that the product needs, and view reads like a transposition.
    """
    k_t = _repeat(q, k).reshape(q.shape[0], q.shape[1], q.shape[-1], k.shape[2])
    return _mix(q, v, _softmax(q.to(k_t.dtype) @ k_t / math.sqrt(q.shape[-1]), _visible(q, k, causal, mask)))


def groups_tiled(q, k, v, causal=True, mask=None):
    """the key heads are tiled: query head h reads key head h % n_kv_heads instead of h // groups.

    Tempting: repeat is shorter than repeat_interleave, and with one key head, or no groups, they agree.
    Seen: onnx/onnx#7274.
    """
    groups = q.shape[1] // k.shape[1]
    return _attend(q, k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1), _visible(q, k, causal, mask))


def softmax_over_queries(q, k, v, causal=True, mask=None):
    """the softmax runs over the queries, so that the weights of a key sum to one, not those of a query.

    Tempting: dim=-2 for dim=-1; the weights are square, and training finds a way around it.
    Seen: labmlai/annotated_deep_learning_paper_implementations#146.
    """
    return _mix(q, v, _softmax(_scores(q, k), _visible(q, k, causal, mask), dim=-2))


def softmax_over_heads(q, k, v, causal=True, mask=None):
    """the softmax runs over the heads.

    Tempting: dim=1 was right for [batch seq], and it is what torch's softmax chooses for four axes without a dim.
    """
    return _mix(q, v, _softmax(_scores(q, k), _visible(q, k, causal, mask), dim=1))


def not_causal_without_mask(q, k, v, causal=True, mask=None):
    """causal is only heeded where a mask is given too.

    Tempting: everything about hiding stands below one `if mask is not None`.
    Seen: facebookresearch/xformers#103.
    """
    return _attend(q, k, v, _visible(q, k, causal and mask is not None, mask))


def not_causal_with_mask(q, k, v, causal=True, mask=None):
    """causal is ignored where a mask is given, so that the mask alone decides.

    Tempting: torch's attention refuses is_causal beside attn_mask, and a padding mask does not look like a choice.
    Seen: huggingface/candle#3609.
    """
    return _attend(q, k, v, _visible(q, k, causal and mask is None, mask))


def mask_ignored_when_causal(q, k, v, causal=True, mask=None):
    """the mask is ignored when causal.

    Tempting: the fast path for causal attention takes no mask.
    Seen: AI-Hypercomputer/maxtext#878.
    """
    return _attend(q, k, v, _visible(q, k, causal, None if causal else mask))


def mask_or_causal(q, k, v, causal=True, mask=None):
    """a key is visible where the mask or causal allows it, not only where both do.

    Tempting: two masks are "added", and with True for "may attend" an addition is an or.
    """
    visible = _visible(q, k, causal, None)
    return _attend(q, k, v, visible | mask if causal and mask is not None else _visible(q, k, causal, mask))


def mask_inverted(q, k, v, causal=True, mask=None):
    """the mask is read the wrong way round: True hides a key instead of showing it.

    Tempting: so it is in nn.MultiheadAttention and masked_fill; scaled_dot_product_attention has it the other way.
    Seen: rasbt/LLMs-from-scratch#1061.
    """
    return _attend(q, k, v, _visible(q, k, causal, None if mask is None else ~mask))


def mask_of_the_first_entry(q, k, v, causal=True, mask=None):
    """the mask of the first batch entry is used for all of them.

    Tempting: a causal mask is the same for all, and a padding mask took its place.
    """
    visible = _visible(q, k, causal, None)
    return _attend(q, k, v, visible if mask is None else visible & torch.broadcast_to(mask, visible.shape)[:1])


def mask_of_the_first_head(q, k, v, causal=True, mask=None):
    """the mask of the first head is used for all of them.

    Tempting: nearly all masks are the same for every head, so one slice saves memory.
    """
    visible = _visible(q, k, causal, None)
    return _attend(q, k, v, visible if mask is None else visible & torch.broadcast_to(mask, visible.shape)[:, :1])


def mask_tiled_over_heads(q, k, v, causal=True, mask=None):
    """a mask for each batch entry is tiled over the heads, so that a head gets the mask of another entry.

    Tempting: entries and heads are flattened to one axis, and repeat gives the length that is needed.
    Seen: line/lighthouse#77.
    """
    if mask is not None and mask.ndim == 4 and mask.shape[:2] == (q.shape[0], 1):
        mask = mask[:, 0].repeat(q.shape[1], 1, 1).unflatten(0, q.shape[:2])
    return _attend(q, k, v, _visible(q, k, causal, mask))


def mask_of_three_axes_for_entries(q, k, v, causal=True, mask=None):
    """a mask [n q_len kv_len] is taken as one for each batch entry, not, as broadcasting has it, for each head.

    Tempting: a padding mask is one for each entry, and an unsqueeze(1) makes room for the heads.
    """
    if mask is not None and mask.ndim == 3:
        mask = mask.unsqueeze(1)
    return _attend(q, k, v, _visible(q, k, causal, mask))


def causal_at_the_first_key(q, k, v, causal=True, mask=None):
    """the causal mask is aligned at the first key, so that with a cache the newest query sees the oldest keys.

    Tempting: tril() is right where q_len is kv_len, and is_causal of scaled_dot_product_attention does the same.
    Seen: pytorch/pytorch#144858.
    """
    return _attend(q, k, v, _visible(q, k, causal, mask, diagonal=q.shape[2] - k.shape[2]))


def itself_hidden(q, k, v, causal=True, mask=None):
    """a query does not see its own position, only what came before.

    Tempting: triu without an offset hides "the future", and the diagonal with it.
    Seen: pbloem/former#10.
    """
    return _attend(q, k, v, _visible(q, k, causal, mask, diagonal=-1))


def next_visible(q, k, v, causal=True, mask=None):
    """a query also sees the one position after its own.

    Tempting: the diagonal of triu(1) is put into tril; the loss falls wonderfully, for the answer is visible.
    """
    return _attend(q, k, v, _visible(q, k, causal, mask, diagonal=1))


def future_instead_of_past(q, k, v, causal=True, mask=None):
    """a query sees itself and what comes after it, and nothing that came before.

    Tempting: triu for tril; in many codes the upper triangle is what is hidden, here it is what is seen.
    """
    visible = _visible(q, k, False, mask)
    return _attend(q, k, v, visible.triu(k.shape[2] - q.shape[2]) if causal else visible)


def window_of_4096(q, k, v, causal=True, mask=None):
    """a causal query sees only the last 4,096 positions.

    Tempting: Mistral's sliding window comes along with its code, which otherwise fits Llama.
    """
    visible = _visible(q, k, causal, mask)
    return _attend(q, k, v, visible.triu(k.shape[2] - q.shape[2] - 4095) if causal else visible)


def more_queries_than_keys_refused(q, k, v, causal=True, mask=None):
    """more queries than keys are refused even where attention is not causal.

    Tempting: the check is written for causal attention, where the queries are the last of the positions.
    """
    if q.shape[2] > k.shape[2]:
        raise ValueError(f"attention: needs q_len <= kv_len, got {q.shape[2]} and {k.shape[2]}")
    return _attend(q, k, v, _visible(q, k, causal, mask))


def hidden_at_minus_100000(q, k, v, causal=True, mask=None):
    """hidden scores are set to -100,000, which is not the lowest score where the visible ones are lower still.

    Tempting: it is far below any usual score, and -inf makes NaN.
    Seen: TransformerLensOrg/TransformerLens#319.
    """
    visible = _visible(q, k, causal, mask)
    weights = torch.softmax(_scores(q, k).masked_fill(~visible, -1e5), dim=-1)
    return _mix(q, v, _zero_where_empty(weights, visible))


def hidden_by_10000_less(q, k, v, causal=True, mask=None):
    """hidden scores are only lowered by 10,000, so that one that lies further above the rest is seen all the same.

    Tempting: it is a product and a sum, it fits into float16, and BERT did it.
    Seen: huggingface/transformers#12109.
    """
    visible = _visible(q, k, causal, mask)
    weights = torch.softmax(_scores(q, k) - 1e4 * ~visible, dim=-1)
    return _mix(q, v, _zero_where_empty(weights, visible))


def hidden_at_nearly_zero(q, k, v, causal=True, mask=None):
    """hidden scores are set to -1e-9, which is 0 for a softmax and hides nothing.

    Tempting: it should have been -1e9.
    Seen: Shujun-He/RibonanzaNet#5.
    """
    visible = _visible(q, k, causal, mask)
    weights = torch.softmax(_scores(q, k).masked_fill(~visible, -1e-9), dim=-1)
    return _mix(q, v, _zero_where_empty(weights, visible))


def mask_added_as_ones(q, k, v, causal=True, mask=None):
    """what is visible gets 1 added to its score, and what is hidden gets 0, which hides nothing.

    Tempting: masks are added to scores; this one is still made of zeros and ones.
    Seen: bkitano/llama-from-scratch, llama.ipynb.
    """
    visible = _visible(q, k, causal, mask)
    return _mix(q, v, _zero_where_empty(torch.softmax(_scores(q, k) + visible.float(), dim=-1), visible))


def hidden_after_the_softmax(q, k, v, causal=True, mask=None):
    """hidden weights are set to 0 after the softmax, so that the weights that are left sum to less than one.

    Tempting: a hidden key gets no weight, which is what was asked for.
    """
    weights = torch.softmax(_scores(q, k), dim=-1)
    return _mix(q, v, weights.masked_fill(~_visible(q, k, causal, mask), 0))


def largest_of_hidden_scores_too(q, k, v, causal=True, mask=None):
    """the score that is subtracted before exp is the largest of all, hidden ones too, so that visible ones may vanish.

    Tempting: the maximum cancels, so that any would do, as long as no power becomes zero.
    """
    scores = _scores(q, k)
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True).detach())
    return _mix(q, v, _normalised(powers.masked_fill(~_visible(q, k, causal, mask), 0)))


def largest_of_all_rows(q, k, v, causal=True, mask=None):
    """the score that is subtracted before exp is the largest of all queries and heads, not each query's own.

    Tempting: nothing overflows, and one number is simpler than one for each row; rows far below it come to nothing.
    """
    scores = _scores(q, k).masked_fill(~_visible(q, k, causal, mask), -torch.inf)
    largest = scores.amax(dim=(1, 2, 3), keepdim=True).detach()
    return _mix(q, v, _normalised(torch.exp(scores - largest.masked_fill(largest == -torch.inf, 0))))


def largest_not_subtracted(q, k, v, causal=True, mask=None):
    """exp is taken of the scores as they are, which overflows above 88 in float32.

    Tempting: it is the formula of the paper.
    Seen: NVIDIA/FasterTransformer#43.
    """
    powers = torch.exp(_scores(q, k)).masked_fill(~_visible(q, k, causal, mask), 0)
    return _mix(q, v, _normalised(powers))


def largest_at_least_zero(q, k, v, causal=True, mask=None):
    """the largest score is sought from 0 upwards, not from -inf, so that rows of scores far below 0 give zeros.

    Tempting: a running maximum has to start somewhere, and 0 makes no NaN where nothing is visible.
    Seen: Dao-AILab/flash-attention#2082.
    """
    scores = _scores(q, k).masked_fill(~_visible(q, k, causal, mask), -torch.inf)
    return _mix(q, v, _normalised(torch.exp(scores - scores.amax(dim=-1, keepdim=True).clamp(min=0).detach())))


def nothing_visible_is_nan(q, k, v, causal=True, mask=None):
    """a query that may attend to nothing gives NaN.

    Tempting: -inf in a softmax is right in every other row; a padded query is such a one.
    Seen: pytorch/pytorch#103749.
    """
    visible = _visible(q, k, causal, mask)
    return _mix(q, v, torch.softmax(_scores(q, k).masked_fill(~visible, -torch.inf), dim=-1))


def nothing_visible_is_nan_in_the_gradient(q, k, v, causal=True, mask=None):
    """the NaN of a query that may attend to nothing is made 0 in the result, but is still there in the gradient.

    Tempting: nan_to_num after the softmax, and the result is right.
    """
    scores = _scores(q, k)
    scores = scores + torch.zeros_like(scores).masked_fill(~_visible(q, k, causal, mask), -torch.inf)
    return _mix(q, v, torch.nan_to_num(torch.softmax(scores, dim=-1)))


def nothing_visible_is_the_mean(q, k, v, causal=True, mask=None):
    """a query that may attend to nothing gives the mean of all values.

    Tempting: the lowest finite number instead of -inf makes no NaN; but equal scores have equal weights.
    Seen: keras-team/keras#21149.
    """
    visible = _visible(q, k, causal, mask)
    scores = _scores(q, k)
    return _mix(q, v, torch.softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min), dim=-1))


def nothing_visible_by_the_mask_alone(q, k, v, causal=True, mask=None):
    """zeros come only where the mask hides everything, but not where mask and causal do so together.

    Tempting: causal leaves everyone something, and the mask is what was passed in.
    """
    visible = _visible(q, k, causal, mask)
    scores = _scores(q, k)
    weights = torch.softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min), dim=-1)
    return _mix(q, v, weights if mask is None else _zero_where_empty(weights, mask))


def scores_in_bfloat16(q, k, v, causal=True, mask=None):
    """the scores are computed in bfloat16, whatever the inputs are.

    Tempting: autocast does it to every product below it, and the loss looks the same.
    """
    products = _products(q.bfloat16(), k.bfloat16()).bfloat16().to(_repeat(q, v).dtype)
    return _mix(q, v, _softmax(products / math.sqrt(q.shape[-1]), _visible(q, k, causal, mask)))


def products_in_float16(q, k, v, causal=True, mask=None):
    """the products are computed in the dtype of q and only then scaled, which in float16 overflows above 65,504.

    Tempting: the softmax is in float32 already, and in all other dtypes nothing happens.
    Seen: ultralytics/ultralytics#24990.
    """
    products = q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).transpose(-2, -1)
    scores = products.to(_repeat(q, v).dtype) / math.sqrt(q.shape[-1])
    return _mix(q, v, _softmax(scores, _visible(q, k, causal, mask)))


def sum_not_rescaled(q, k, v, causal=True, mask=None):
    """with the keys taken some at a time, what was summed so far is not rescaled when a larger score comes up.

    Tempting: the correction is a factor of 1 until it is not.
    """
    scores, values = _scores(q, k).masked_fill(~_visible(q, k, causal, mask), -torch.inf), _repeat(q, v)
    largest, total, y = -torch.inf, 0, 0
    for tile, value in zip(scores.split(_TILE, dim=-1), values.split(_TILE, dim=-2), strict=True):
        new = tile.amax(dim=-1, keepdim=True).detach().clamp(min=largest)
        powers = torch.exp(tile - new.masked_fill(new == -torch.inf, 0))
        largest, total, y = new, total + powers.sum(dim=-1, keepdim=True), y + powers @ value
    return (y / total.masked_fill(total == 0, 1)).to(q.dtype)


def last_tile_dropped(q, k, v, causal=True, mask=None):
    """with the keys taken some at a time, those that do not fill the last tile are left out.

    Tempting: kv_len // tile is the number of tiles, for every length that a benchmark tries.
    """
    visible = _visible(q, k, causal, mask)
    visible[..., k.shape[2] // _TILE * _TILE :] = False
    return _attend(q, k, v, visible)


def last_tile_padded(q, k, v, causal=True, mask=None):
    """with the keys taken some at a time, the zeros that fill up the last tile take part as keys with a score of 0.

    Tempting: zeros add nothing to a sum, but exp(0) is 1; and under a causal mask they are hidden anyway.
    Seen: flashinfer-ai/flashinfer#5090.
    """
    padding = (0, -k.shape[2] % _TILE)
    visible = F.pad(_visible(q, k, causal, mask), padding, value=not causal)
    return _mix(q, v, _softmax(F.pad(_scores(q, k), padding), visible)[..., : k.shape[2]])


def probes():
    """Scores far above and below each other, queries that see nothing, and shapes that are drawn nowhere else."""

    def call(queries, keys, mask=None, causal=True, of=(1, 1), features=1, dtype=target.ALL[0]):
        def probe(layer):
            q, k = (target.tensor(t, dtype).reshape(*of, -1, features) for t in (queries, keys))
            v = target.tensor(6 + torch.arange(k.numel()).reshape(k.shape), dtype)
            y = layer(q.requires_grad_(), k, v, causal, None if mask is None else target.tensor(mask))
            return [y.detach(), *torch.autograd.grad(y.sum(), [q])]

        return probe

    return [
        call([1.0], [0.0, -2e4], [[False, True]]),
        call([1.0], [0.0, -2e5], [[False, True]]),
        call([1.0], [3e4, 0.0], [[False, True]]),
        call([1.0, 1.0], [1000.0, 0.0], [[True, True], [False, True]]),
        call([1.0, 1.0], [-1000.0, 0.0]),
        call([1.0, 1.0], [1.0, 2.0], [[False, False], [False, True]]),
        call([1.0, 1.0], [1.0, 2.0], [[False, True], [True, True]]),
        call([1.0] * 4, [1.0, 2.0] * 4, [[[True, False]], [[False, True]]], of=(2, 2)),
        call([1.0, 1.0], [1.0], causal=False),
        call([1.0, 1.0], [0.0, 0.0, 0.0], [[True] * 3] * 2),
        call([1.0] * 4, [1.0, 2.0] * 2, [[True, False], [True, True]], of=(2, 1)),
        call([1.0] * 200, torch.linspace(0, 1, 200).tolist(), [[at >= 150 for at in range(200)]]),
        call([1.0] * 70, torch.linspace(0, 1, 70).tolist(), [[at % 2 == 0 for at in range(70)]]),
        # Two heads at very different heights: a maximum that they share leaves one of them nothing.
        call([1.0] * 4, [0.0, 1.0, -3000.0, -3001.0], causal=False, of=(1, 2)),
        call([1.0], [0.0] * 5000),
        call([200.0] * 4, [200.0] * 4 + [199.0] * 4, features=4, dtype=torch.float16),
        call([1e16] * 2, [-1e16, -1.1e16], causal=False),
        *_of_kernels(),
    ]


def _of_kernels():
    """Whole blocks, long caches, other layouts, a mask that changes, and gradients for some arguments alone."""

    def make(q_len=2, kv_len=3, of=(1, 1, 1), features=2):
        batch, heads, kv_heads = of
        shapes = (batch, heads, q_len), (batch, kv_heads, kv_len), (batch, kv_heads, kv_len)
        q, k, v = (torch.linspace(-1, 1 + i, math.prod(s) * features).view(*s, features) for i, s in enumerate(shapes))
        return [target.tensor(t) for t in (q, k.square(), v.sin())]

    def beside(layer):
        q, k, v = make()
        return layer(q, k, v.mT.contiguous().mT)

    def written_to(layer):
        q, k, v = make(1, 1)
        layer(q, k, v).zero_()
        return v

    def broadcast_keys(layer):
        (q, _, _), (_, k, v) = make(2, 97, of=(2, 1, 1)), make(2, 97)
        return layer(q, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1), False, target.tensor([True] * 97))

    def expanded_mask(layer):
        mask = target.tensor([[True], [False], [True], [True]]).expand(4, 4)
        return layer(*make(4, 4), False, mask.mT) + layer(*make(4, 4), False, mask.flip(0))

    def mask_changed(layer):
        q, k, v = make()
        mask = target.tensor([[True, False, True]] * 2)
        first = layer(q, k, v, True, mask)
        mask.logical_not_()
        return [first, layer(q, k, v, True, mask)]

    def many(layer):
        q, k, v = make(1, 1, of=(32770, 2, 2), features=1)
        return layer(q, k, v).sum()

    def no_keys(layer):
        q, k, v = make(2, 0)
        return layer(q, k, v, False)

    return [
        (tuple(make(32, 32)), {}),
        (tuple(make(2, 4100)), {}),
        (tuple(make(2, 4100, of=(2, 1, 1))), {}),
        (tuple(make(3, 70)), {}),
        (tuple(make(2, 128)), {"mask": target.tensor([[True] * 128] * 2)}),
        (tuple(make(2, 65)), {}),
        (tuple(make(features=260)), {}),
        (tuple(make(features=130)), {}),
        beside,
        written_to,
        broadcast_keys,
        expanded_mask,
        mask_changed,
        many,
        no_keys,
        gradients(make, of=(1,)),
        gradients(make, of=(2,)),
        gradients(make, of=(0, 1, 2), transposed=True, times=2),
        gradients(lambda: make(of=(1, 2, 1)), of=(1, 2)),
        gradients(lambda: make(2, 130), of=(1, 2)),
    ]


def mask_of_ones_as_causal_alone(q, k, v, causal=True, mask=None):
    """a mask that hides nothing is replaced by torch's is_causal, which aligns the first query with the first key.

    Tempting: without padding the fast path needs no mask tensor; where both lengths are equal it is right.
    """
    groups = q.shape[1] != k.shape[1]
    if mask is not None and mask.all() and k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal and q.shape[2] > 1, enable_gqa=groups)
    return _attend(q, k, v, _visible(q, k, causal, mask))


def mask_of_two_axes_for_padding(q, k, v, causal=True, mask=None):
    """a mask [q_len kv_len] is taken for padding [batch kv_len] where there are as many entries as queries.

    Tempting: it is what a tokenizer's attention_mask looks like.
    """
    if mask is not None and mask.shape == (q.shape[0], k.shape[2]) and q.shape[0] > 1:
        mask = mask[:, None, None, :]
    return _attend(q, k, v, _visible(q, k, causal, mask))


def hidden_tiles_are_nan(q, k, v, causal=True, mask=None):
    """two tiles of keys of which a query sees none give NaN: exp of minus infinity less minus infinity.

    Tempting: the first tile has no maximum before it to be compared with, so that one such tile does no harm.
    """
    visible, largest, total, y = _visible(q, k, causal, mask), None, 0, 0
    for start in range(0, k.shape[2], 64):
        tile = slice(start, start + 64)
        scores = _scores(q, k[:, :, tile]).masked_fill(~visible[..., tile], -torch.inf)
        new = scores.amax(dim=-1, keepdim=True).detach()
        new = new if largest is None else torch.maximum(new, largest)
        powers = torch.exp(scores - new.masked_fill(new == -torch.inf, 0))
        before = 0 if largest is None else torch.exp(largest - new)
        total, y = before * total + powers.sum(-1, keepdim=True), before * y + powers @ _repeat(q, v[:, :, tile])
        largest = new
    return torch.zeros_like(q) if largest is None else (y / total.masked_fill(total == 0, 1)).to(q.dtype)


def broadcast_mask_cut_in_blocks(q, k, v, causal=True, mask=None):
    """the mask is cut into blocks of queries even where its axis of queries has size one.

    Tempting: the queries are taken 64 at a time, and the mask is cut as they are; up to 64 it goes well.
    """
    if mask is None:
        return _attend(q, k, v, _visible(q, k, causal, mask))
    mask, parts = torch.atleast_2d(mask), []
    for start in range(0, q.shape[2], 64):
        block = slice(start, start + 64)
        visible = _visible(q, k, causal, None)[:, :, block] & mask[..., block, :]
        parts.append(_attend(q[:, :, block], k, v, visible))
    return torch.cat(parts, dim=2) if parts else torch.zeros_like(q)


def not_causal_at_multiples_of_32(q, k, v, causal=True, mask=None):
    """where there are as many queries as keys, a multiple of 32, and no mask, every query sees every key.

    Tempting: a template for even sizes leaves out the test at the edge, and with it the one at the diagonal.
    """
    even = q.shape[2] == k.shape[2] and q.shape[2] % 32 == 0 and mask is None
    return _attend(q, k, v, _visible(q, k, causal and not even, mask))


def long_cache_not_causal(q, k, v, causal=True, mask=None):
    """with few queries and more than 4,096 keys every query sees every key.

    Tempting: the path that splits a long cache is for decoding, where the one query sees everything anyway.
    """
    decoding = q.shape[2] <= 8 and k.shape[2] > 4096
    return _attend(q, k, v, _visible(q, k, causal and not decoding, mask))


def long_cache_of_the_first_sequence(q, k, v, causal=True, mask=None):
    """with few queries and more than 4,096 keys, all sequences of the batch get what the first one gets.

    Tempting: the parts of a split cache are put together by a stride that nobody has set, and one sequence tests well.
    Seen: vllm-project/flash-attention#176 (the reason for a guard).
    """
    y = _attend(q, k, v, _visible(q, k, causal, mask))
    return y[:1].expand_as(y).clone() if q.shape[2] <= 8 and k.shape[2] > 4096 else y


def causal_by_the_padded_length(q, k, v, causal=True, mask=None):
    """beyond 64 keys they are filled up to a multiple of 64, and the queries are taken for the last of that many.

    Tempting: the kernel is told one length, and that of the memory is the one at hand.
    """
    more = -k.shape[2] % 64 if k.shape[2] > 64 else 0
    return _attend(q, k, v, _visible(q, k, causal, mask, diagonal=more))


def last_keys_skipped_at_multiples_of_128(q, k, v, causal=True, mask=None):
    """where 128 divides the number of keys and a mask is given, the last 128 keys are left out.

    Tempting: the last block is masked separately, with kv_len % 128 keys, and here that is none.
    """
    visible = _visible(q, k, causal, mask)
    if mask is not None and k.shape[2] and k.shape[2] % 128 == 0:
        visible[..., -128:] = False
    return _attend(q, k, v, visible)


def one_key_too_few_beyond_multiples_of_32(q, k, v, causal=True, mask=None):
    """where one key is left over beyond a multiple of 32, from 64 on, it is not read.

    Tempting: a round for a single key seems to be one round too many.
    """
    visible = _visible(q, k, causal, mask)
    if k.shape[2] > 64 and k.shape[2] % 32 == 1:
        visible[..., -1] = False
    return _attend(q, k, v, visible)


def features_beyond_256_not_compared(q, k, v, causal=True, mask=None):
    """queries and keys are compared by their first 256 features.

    Tempting: 256 is the largest head_dim that kernels are made for.
    """
    scores = _products(q[..., :256], k[..., :256]) / math.sqrt(q.shape[-1])
    return _mix(q, v, _softmax(scores, _visible(q, k, causal, mask)))


def scaled_by_the_padded_head_dim(q, k, v, causal=True, mask=None):
    """beyond 128 features head_dim is filled up to a multiple of 16, and the scores are scaled by that.

    Tempting: zeros change no product, and the scale is computed where the padded shape is known.
    Seen: tile-ai/tilelang-ascend#1670 (backwards).
    """
    d = q.shape[-1]
    scores = _products(q, k) / math.sqrt(d + (-d % 16 if d > 128 else 0))
    return _mix(q, v, _softmax(scores, _visible(q, k, causal, mask)))


def values_by_the_strides_of_the_keys(q, k, v, causal=True, mask=None):
    """the values are read with the strides of the keys, which are others where the two lie differently in memory.

    Tempting: both come out of the same projection, and one set of strides is passed for the two.
    Seen: flagos-ai/FlagAttention#46.
    """
    if v.stride() != k.stride() and v.numel():
        at = torch.zeros(k.shape, dtype=torch.int64, device=k.device)
        for axis, (size, stride) in enumerate(zip(k.shape, k.stride(), strict=True)):
            at = at + (torch.arange(size, device=k.device) * stride).view(-1, *[1] * (3 - axis))
        behind = v.untyped_storage().nbytes() // v.element_size() - v.storage_offset()
        v = v.as_strided((behind,), (1,))[at % behind]
    return _attend(q, k, v, _visible(q, k, causal, mask))


def strides_of_the_mask_ignored(q, k, v, causal=True, mask=None):
    """the mask is read in the order of its memory, which is another where it is expanded or transposed.

    Tempting: a mask is made for the call; but expand is how one mask serves all heads.
    """
    return _attend(q, k, v, _visible(q, k, causal, None if mask is None else as_if_contiguous(mask)))


_SEEN = []


def mask_kept_while_it_is_the_same_object(q, k, v, causal=True, mask=None):
    """mask and causal are combined once and kept as long as the mask is the same object, whatever is written to it.

    Tempting: all layers of a model pass one mask; but the next step may fill it anew.
    """
    if mask is None:
        return _attend(q, k, v, _visible(q, k, causal, mask))
    sizes = q.shape[:3], k.shape[2], causal
    if not (_SEEN and _SEEN[0] is mask and _SEEN[1] == sizes):
        _SEEN[:] = mask, sizes, _visible(q, k, causal, mask)
    return _attend(q, k, v, _SEEN[2])


def heads_beyond_65535_left_out(q, k, v, causal=True, mask=None):
    """of all heads of all sequences, those from the 65,536th on are never computed, and stay zero.

    Tempting: batch times heads is the axis of a grid that ends at 65,535.
    Seen: SandAI-org/MagiAttention#40 (backwards, for sequences).
    """
    y = _attend(q, k, v, _visible(q, k, causal, mask))
    heads = torch.arange(q.shape[0] * q.shape[1], device=q.device).view(*q.shape[:2], 1, 1)
    return y.masked_fill(heads >= 65535, 0)


def no_keys_is_nan(q, k, v, causal=True, mask=None):
    """where there are no keys at all the result is NaN, and not zeros.

    Tempting: a sum of nothing is zero, and it is divided by a sum of nothing.
    """
    if k.shape[2] == 0:
        return (q.sum() * torch.nan).expand_as(q).clone()
    return _attend(q, k, v, _visible(q, k, causal, mask))


def no_gradient_beside_a_frozen_query(q, k, v, causal=True, mask=None):
    """keys and values have a gradient only where the queries ask for one.

    Tempting: one question decides about the whole backward pass, and the three come from one x.
    """
    if not q.requires_grad:
        k, v = k.detach(), v.detach()
    return _attend(q, k, v, _visible(q, k, causal, mask))


def gradient_of_the_last_head_of_a_group(q, k, v, causal=True, mask=None):
    """the gradient of a key head is that of the last query head that reads it, not the sum over its group.

    Tempting: each query head writes its own, and without groups nothing has to be added up.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (torch.stack([*[t.detach()] * (groups - 1), t], dim=2).flatten(1, 2) for t in (k, v))
    return _attend(q, k, v, _visible(q, k, causal, mask))


def gradient_of_the_first_128_keys(q, k, v, causal=True, mask=None):
    """keys and values from the 129th on have no gradient.

    Tempting: the grid of the backward pass counts blocks of queries where it should count blocks of keys.
    """
    k, v = (torch.cat((t[:, :, :128], t[:, :, 128:].detach()), dim=2) for t in (k, v))
    return _attend(q, k, v, _visible(q, k, causal, mask))


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, visible):
        ctx.weights = _softmax(scores, visible)
        return ctx.weights.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        weights = ctx.weights
        weights *= gradient - (gradient * weights).sum(-1, keepdim=True)
        return weights, None


def gradient_over_the_weights(q, k, v, causal=True, mask=None):
    """the gradient of the scores is written over the weights kept for it, so that a second backward pass is wrong.

    Tempting: they are the largest tensor of all, and mostly not needed any more.
    """
    return _mix(q, v, _Weighted.apply(_scores(q, k), _visible(q, k, causal, mask)))


def upstream_taken_for_contiguous(q, k, v, causal=True, mask=None):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: it ought to lie as the result does, and merging the heads transposes it.
    Seen: Dao-AILab/flash-attention#355, facebookresearch/xformers#282.
    """
    return with_gradient(_attend(q, k, v, _visible(q, k, causal, mask)), as_if_contiguous)


def values_themselves_for_a_single_key(q, k, v, causal=True, mask=None):
    """with one query, one key and no mask the result is the values themselves: who writes to one writes to the other.

    Tempting: the first token of a text can only look at itself.
    """
    if q.shape == v.shape and v.shape[2] == 1 and mask is None and not (q.requires_grad or k.requires_grad):
        return v
    return _attend(q, k, v, _visible(q, k, causal, mask))


def last_key_lost_where_the_keys_are_broadcast(q, k, v, causal=True, mask=None):
    """with a mask, and one key beyond a multiple of 32, the last key is lost where one memory serves several sequences.

    Tempting: the tail of a block is read through a stride between sequences, which is 0 where keys are expanded.
    Seen: pytorch/pytorch#191937.
    """
    visible = _visible(q, k, causal, mask)
    if mask is not None and k.shape[0] > 1 and k.stride(0) == 0 and k.shape[2] > 32 and k.shape[2] % 32 == 1:
        visible[..., -1] = False
    return _attend(q, k, v, visible)


def largest_never_below_minus_1e30(q, k, v, causal=True, mask=None):
    """the search for the largest score starts from -1e30, so that rows of scores below that give zeros.

    Tempting: -1e30 makes no NaN where -inf would, and no score is so low; but products in float32 may be.
    """
    scores = _scores(q, k).masked_fill(~_visible(q, k, causal, mask), -torch.inf)
    largest = scores.amax(dim=-1, keepdim=True).detach().clamp(min=-1e30)
    return _mix(q, v, _normalised(torch.exp(scores - largest)))


def softmax_forgotten(q, k, v, causal=True, mask=None):
    """the scores themselves are the weights of the values: there is no softmax.

    Tempting: with the mask applied the product with the values has the right shape.
    """
    return _mix(q, v, _scores(q, k).masked_fill(~_visible(q, k, causal, mask), 0))


def scaled_after_the_softmax(q, k, v, causal=True, mask=None):
    """the weights are divided by the square root of head_dim after the softmax, and not the scores before it.

    Tempting: the division stands at the end of the line, outside of the bracket.
    """
    weights = _softmax(_products(q, k), _visible(q, k, causal, mask))
    return _mix(q, v, weights / math.sqrt(q.shape[-1]))


def scaled_by_the_number_of_keys(q, k, v, causal=True, mask=None):
    """the scores are divided by the square root of kv_len, and not of head_dim.

    Tempting: k.shape[-2] for k.shape[-1], or the size of the scores instead of that of the keys.
    """
    return _mix(q, v, _softmax(_products(q, k) / math.sqrt(k.shape[2]), _visible(q, k, causal, mask)))


def keys_averaged(q, k, v, causal=True, mask=None):
    """the mean is taken of the keys, and not of the values.

    Tempting: k and v have one shape and stand next to each other.
    """
    return _attend(q, k, k, _visible(q, k, causal, mask))


def first_key_head_for_all(q, k, v, causal=True, mask=None):
    """all query heads read the first key and value head.

    Tempting: with one key head it is right, and broadcasting does the rest.
    """
    return _attend(q, k[:, :1], v[:, :1], _visible(q, k, causal, mask))


def causal_ignored(q, k, v, causal=True, mask=None):
    """causal is ignored: every query sees all keys that the mask shows.

    Tempting: attention is complete without it, and nothing fails.
    """
    return _attend(q, k, v, _visible(q, k, False, mask))


def always_causal(q, k, v, causal=True, mask=None):
    """attention is always causal, whatever is asked for.

    Tempting: Llama never needs it otherwise.
    """
    return _attend(q, k, v, _visible(q, k, True, mask))


def mask_ignored(q, k, v, causal=True, mask=None):
    """the mask is ignored.

    Tempting: it is None in most calls, and causal seems to be mask enough.
    """
    return _attend(q, k, v, _visible(q, k, causal, None))


def heads_after_the_queries(q, k, v, causal=True, mask=None):
    """the result is [batch q_len n_heads head_dim]: heads and queries have changed places.

    Tempting: it is what has to be done next, before the heads are merged.
    """
    return _attend(q, k, v, _visible(q, k, causal, mask)).transpose(1, 2)
