"""The bugs that people make in tiled_attention."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.cases.decoding.tiled_attention import Largest, limit
from tests.zoo.kernels import as_if_contiguous


def probes():
    """Scores that rise, fall and lie far from zero, queries that see nothing, long rows, other layouts, and memory."""

    def call(queries, keys, mask=None, causal=False, tile=1, features=1, dtype=target.ALL[0]):
        def probe(layer):
            q, k = (target.tensor(t, dtype).reshape(1, 1, -1, features) for t in (queries, keys))
            v = target.tensor(6 + torch.arange(k.numel()).reshape(k.shape), dtype)
            return list(layer(q, k, v, causal, None if mask is None else target.tensor(mask), tile))

        return probe

    def make(q_len=2, kv_len=5, of=(1, 1, 1), features=2, dtype=None):
        batch, heads, kv_heads = of
        shapes = (batch, heads, q_len), (batch, kv_heads, kv_len), (batch, kv_heads, kv_len)
        lines = [torch.linspace(-1, 1 + i, math.prod(s) * features).view(*s, features) for i, s in enumerate(shapes)]
        return [target.tensor(t, dtype) for t in (lines[0], lines[1].square(), lines[2].sin())]

    def of(causal=False, mask=None, tile=2, **sizes):
        def probe(layer):
            return list(layer(*make(**sizes), causal, None if mask is None else target.tensor(mask), tile))

        return probe

    def lying(place):
        def probe(layer):
            args = make(3, 4, features=3)
            args[place] = args[place].mT.contiguous().mT
            return list(layer(*args, False, None, 2))

        return probe

    def expanded_mask(layer):
        mask = target.tensor([[True], [False], [True], [True]]).expand(4, 4)
        return [*layer(*make(4, 4), False, mask, 2), *layer(*make(4, 4), False, mask.mT, 2)]

    def twice(layer):
        _, first = layer(*make(), False, None, 2)
        _, second = layer(*make(dtype=torch.float32)[:1], *make()[2:], make()[1], False, None, 2)
        return [second, first]

    def memory(causal=False, masked=False):
        def probe(layer):
            q, k, v = make(64, 1024, of=(1, 2, 1), features=4)
            mask = target.tensor([True] * 1024).expand(1, 2, 64, 1024) if masked else None
            with Largest() as largest:
                layer(q, k, v, causal, mask, 64)
            return [largest.elements <= limit(q, k, 64)]

        return probe

    return [
        call([1.0], [0.0, 1000.0]),
        call([1.0], [1000.0, 0.0]),
        call([1.0], [-1000.0, -1001.0], tile=2),
        call([1.0], [-6e4, -60001.0], tile=2),
        call([1.0], [0.0, -2e4], [[False, True]]),
        call([1.0], [3e4, 0.0], [[False, True]], tile=2),
        call([1.0, 1.0], [1.0, 2.0, 3.0], [[False, False, True], [False, False, False]]),
        call([1.0, 1.0], [1.0, 2.0, 3.0], [[True], [False]]),
        call([1.0] * 3, [1.0, 2.0, 4.0, 3.0, 0.0, 1.0, 2.0], causal=True, tile=2),
        call([1.0] * 3, [1.0, 2.0, 4.0, 3.0, 0.0, 1.0], causal=True, tile=4),
        call([1.0] * 2, [1.0, 2.0, 4.0, 3.0], [[True, False, True, True]] * 2, causal=True, tile=2),
        call([200.0] * 4, [200.0] * 4 + [199.0] * 4, features=4, dtype=torch.float16, tile=2),
        call([0.0], [0.0] * 300, dtype=torch.bfloat16),
        call([0.0], [0.0] * 600, dtype=torch.float16, tile=600),
        of(tile=64, kv_len=64),
        of(tile=3, kv_len=7),
        of(of=(1, 4, 2)),
        of(causal=True, of=(2, 4, 2), q_len=3),
        *map(lying, range(3)),
        expanded_mask,
        twice,
        memory(),
        memory(causal=True),
        memory(masked=True),
    ]


class _State(NamedTuple):
    """What is kept of the tiles so far, for each query."""

    largest: torch.Tensor
    total: torch.Tensor
    y: torch.Tensor


def _wide(t):
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _tiles(kv_len, tile):
    return [(start, min(start + tile, kv_len)) for start in range(0, kv_len, tile)]


def _by_causal(q, k, start, end):
    last = torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)
    return torch.arange(start, end, device=q.device) <= last[:, None]


def _of_mask(mask, start, end):
    return mask if mask.shape[-1] == 1 else mask[..., start:end]


def _visible(q, k, causal, mask, start, end):
    """Which keys of the tile each query may attend to, as [q_len tile] or with more axes."""
    visible = _by_causal(q, k, start, end) if causal else q.new_ones(q.shape[2], end - start, dtype=torch.bool)
    return visible if mask is None else visible & _of_mask(mask, start, end)


def _repeated(q, k):
    return k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)


def _scores(q, keys):
    return (_wide(q) / math.sqrt(q.shape[-1])) @ keys.mT


def _hidden(scores, visible):
    return scores.masked_fill(~visible, -torch.inf)


def _finite(largest):
    return largest.masked_fill(largest == -torch.inf, 0)


def _begin(q, largest=-math.inf):
    y = torch.zeros_like(_wide(q), memory_format=torch.contiguous_format)
    return _State(torch.full_like(y[..., :1], largest), torch.zeros_like(y[..., :1]), y)


def _largest(state, scores):
    return torch.maximum(state.largest, scores.amax(dim=-1, keepdim=True))


def _powers(state, largest, scores):
    """The factor of what was summed before, and the powers of the tile."""
    return torch.exp(state.largest - _finite(largest)), torch.exp(scores - _finite(largest))


def _add(state, scores, visible, values):
    scores = _hidden(scores, visible)
    largest = _largest(state, scores)
    factor, powers = _powers(state, largest, scores)
    total = factor * state.total + powers.sum(dim=-1, keepdim=True)
    return _State(largest, total, factor * state.y + powers @ values)


def _lse(state):
    return (state.largest + state.total.log())[..., 0]


def _end(q, state):
    return (state.y / state.total.masked_fill(state.total == 0, 1)).to(q.dtype), _lse(state)


def _attend(
    q,
    k,
    v,
    causal,
    mask,
    tile,
    *,
    tiles=_tiles,
    visible=_visible,
    repeated=_repeated,
    scores=_scores,
    begin=_begin,
    add=_add,
    end=_end,
):
    """What is right; what is given by name takes the place of a part of it."""
    if tile < 1:
        raise ValueError(f"tiled_attention: tile must be at least 1, got {tile}")
    state = begin(q)
    for start, stop in tiles(k.shape[2], tile):
        keys, values = (repeated(q, _wide(t[:, :, start:stop])) for t in (k, v))
        state = add(state, scores(q, keys), visible(q, k, causal, mask, start, stop), values)
    return end(q, state)


def _with_lse(of):
    """The end of it, with another lse."""

    def end(q, state):
        return _end(q, state)[0], of(q, state)

    return end


def _where_nothing_is_visible(value):
    return _with_lse(lambda _, state: _lse(state).masked_fill(state.total[..., 0] == 0, value))


def sum_not_rescaled(q, k, v, causal=True, mask=None, tile=64):
    """the sum of the tiles so far is not rescaled when a larger score comes up; the values are.

    Tempting: the correction is a factor of 1 until it is not, and it stands in the line of y already.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        factor, powers = _powers(state, largest, scores)
        return _State(largest, state.total + powers.sum(dim=-1, keepdim=True), factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def values_not_rescaled(q, k, v, causal=True, mask=None, tile=64):
    """the values of the tiles so far are not rescaled when a larger score comes up; the sum is, so that lse is right.

    Tempting: the sum is corrected where the maximum is, and the values are added up elsewhere.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        factor, powers = _powers(state, largest, scores)
        return _State(largest, factor * state.total + powers.sum(dim=-1, keepdim=True), state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def nothing_rescaled(q, k, v, causal=True, mask=None, tile=64):
    """neither the sum nor the values of the tiles so far are rescaled when a larger score comes up.

    Tempting: the maximum cancels in the end, and so it does where it is the same for all tiles.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        _, powers = _powers(state, largest, scores)
        return _State(largest, state.total + powers.sum(dim=-1, keepdim=True), state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def rescaled_upside_down(q, k, v, causal=True, mask=None, tile=64):
    """what was summed so far is multiplied by exp(new - old) of the two largest scores, instead of exp(old - new).

    Tempting: the new score is larger, and so should be the factor, one thinks.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        _, powers = _powers(state, largest, scores)
        factor = torch.exp(_finite(largest) - state.largest).masked_fill(state.largest == -torch.inf, 0)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def tile_not_rescaled(q, k, v, causal=True, mask=None, tile=64):
    """a tile is summed with its own largest score, and added as it is where an earlier tile had a larger one.

    Tempting: the paper has two factors, one for what was and one for what comes, and they look alike.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        factor, _ = _powers(state, largest, scores)
        powers = torch.exp(scores - _finite(scores.amax(dim=-1, keepdim=True)))
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def largest_of_each_tile_alone(q, k, v, causal=True, mask=None, tile=64):
    """the largest score of a tile takes the place of the one before, even where it is smaller, so that powers overflow.

    Tempting: with the right factors any number may be subtracted; but one far too small makes exp infinite.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        of_tile = scores.amax(dim=-1, keepdim=True)
        largest = torch.where(of_tile == -torch.inf, state.largest, of_tile)
        factor, powers = _powers(state, largest, scores)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def largest_of_the_first_tile(q, k, v, causal=True, mask=None, tile=64):
    """the largest score is that of the first tile in which anything is visible, so that later powers may overflow.

    Tempting: with one maximum for all tiles nothing has to be rescaled, and the first is as good as any.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = torch.where(state.largest == -torch.inf, scores.amax(dim=-1, keepdim=True), state.largest)
        factor, powers = _powers(state, largest, scores)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def ten_subtracted_from_all_scores(q, k, v, causal=True, mask=None, tile=64):
    """10 is subtracted from every score in place of the largest, so that scores above 100 overflow.

    Tempting: no maximum has to be looked for and nothing is rescaled, and usual scores lie far below 100.
    Seen: HabanaAI/vllm-fork#275.
    """

    def add(state, scores, visible, values):
        powers = torch.exp(_hidden(scores, visible) - 10)
        return _State(state.largest, state.total + powers.sum(dim=-1, keepdim=True), state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, begin=lambda q: _begin(q, 10.0), add=add)


def largest_at_least_zero(q, k, v, causal=True, mask=None, tile=64):
    """the running maximum begins at 0, not at -inf, so that rows of scores far below 0 give zeros.

    Tempting: it has to begin somewhere, and 0 makes no NaN where nothing is visible.
    Seen: Dao-AILab/flash-attention#2082.
    """
    return _attend(q, k, v, causal, mask, tile, begin=lambda q: _begin(q, 0.0))


def largest_at_least_minus_50000(q, k, v, causal=True, mask=None, tile=64):
    """the running maximum begins at -50,000, so that rows of scores below that give zeros.

    Tempting: it is what the kernel calls infinity, which in float16 it nearly is.
    Seen: flashinfer-ai/flashinfer#4267.
    """
    return _attend(q, k, v, causal, mask, tile, begin=lambda q: _begin(q, -5e4))


def hidden_at_minus_10000(q, k, v, causal=True, mask=None, tile=64):
    """hidden scores are set to -10,000, which is not the lowest score where the visible ones are lower still.

    Tempting: -inf less -inf is NaN, and a finite number never is.
    Seen: ohdearquant/lattice#373.
    """
    seen = [torch.zeros_like(q[..., :1], dtype=torch.bool)]

    def add(state, scores, visible, values):
        seen[0] = seen[0] | visible.any(dim=-1, keepdim=True)
        return _add(state, scores.masked_fill(~visible, -1e4), torch.ones_like(visible), values)

    def end(q, state):
        y, lse = _end(q, state)
        return y.masked_fill(~seen[0], 0), lse.masked_fill(~seen[0][..., 0], -torch.inf)

    return _attend(q, k, v, causal, mask, tile, add=add, end=end)


def largest_of_hidden_scores_too(q, k, v, causal=True, mask=None, tile=64):
    """the running maximum is that of all scores, hidden ones too, so that visible ones far below them vanish.

    Tempting: the maximum is taken right after the product, and the mask is applied to the powers.
    """

    def add(state, scores, visible, values):
        largest = _largest(state, scores)
        factor, powers = _powers(state, largest, scores)
        powers = powers.masked_fill(~visible, 0)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def nan_while_nothing_is_visible(q, k, v, causal=True, mask=None, tile=64):
    """a query that sees nothing in the first tile gives NaN, whatever it sees later.

    Tempting: -inf is the right number to begin with, and -inf less -inf comes up in masked rows alone.
    Seen: flashinfer-ai/flashinfer#4401.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        factor, powers = torch.exp(state.largest - largest), torch.exp(scores - largest)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + powers @ values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def nothing_visible_is_the_mean(q, k, v, causal=True, mask=None, tile=64):
    """a query that may attend to nothing gives the mean of all values, and the lowest number for lse.

    Tempting: the lowest finite number instead of -inf makes no NaN; but its distance from itself is 0, and exp(0) is 1.
    Seen: llmmanorg/llmman#235.
    """
    lowest = torch.finfo(_wide(q).dtype).min

    def add(state, scores, visible, values):
        return _add(state, scores.masked_fill(~visible, lowest), torch.ones_like(visible), values)

    return _attend(q, k, v, causal, mask, tile, add=add)


def nothing_visible_is_nan(q, k, v, causal=True, mask=None, tile=64):
    """the y of a query that may attend to nothing is NaN; its lse is right.

    Tempting: a sum of nothing is zero, and at the end everything is divided by its sum.
    Seen: iree-org/iree#24178.
    """
    return _attend(q, k, v, causal, mask, tile, end=lambda q, s: ((s.y / s.total).to(q.dtype), _lse(s)))


def lse_of_nothing_is_plus_infinity(q, k, v, causal=True, mask=None, tile=64):
    """the lse of a query that may attend to nothing is +inf, and not -inf.

    Tempting: a backward pass takes exp(score - lse), and +inf makes all of these 0.
    Seen: Dao-AILab/flash-attention#978, deepseek-ai/FlashMLA#77.
    """
    return _attend(q, k, v, causal, mask, tile, end=_where_nothing_is_visible(math.inf))


def lse_of_nothing_is_zero(q, k, v, causal=True, mask=None, tile=64):
    """the lse of a query that may attend to nothing is 0, as if it had seen one key with a score of 0.

    Tempting: the guard against -inf less -inf puts a 0 in place of the maximum, and lse begins with the maximum.
    Seen: pytorch/pytorch#134650.
    """
    return _attend(q, k, v, causal, mask, tile, end=_where_nothing_is_visible(0.0))


def lse_of_nothing_is_a_number(q, k, v, causal=True, mask=None, tile=64):
    """the lse of a query that may attend to nothing is -50,000, which is not lower than every score.

    Tempting: it weighs nothing beside usual scores.
    Seen: flashinfer-ai/flashinfer#4452.
    """
    return _attend(q, k, v, causal, mask, tile, end=_where_nothing_is_visible(-5e4))


def lse_without_the_largest(q, k, v, causal=True, mask=None, tile=64):
    """lse is the logarithm of the sum alone: the largest score, which was subtracted before exp, is not added again.

    Tempting: for y the maximum cancels, and it is forgotten that it was there.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: s.total.log()[..., 0]))


def lse_is_the_largest(q, k, v, causal=True, mask=None, tile=64):
    """lse is the largest score; the logarithm of the sum is not added.

    Tempting: where one score is far above the others there is no difference.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: s.largest[..., 0]))


def sum_in_place_of_its_logarithm(q, k, v, causal=True, mask=None, tile=64):
    """lse is the sum of the exponentials itself, without the logarithm.

    Tempting: it is what y is divided by, and it can be added to that of other keys.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s).exp()))


def lse_of_base_2(q, k, v, causal=True, mask=None, tile=64):
    """lse is the logarithm to the base 2.

    Tempting: a processor computes powers of 2, so that scores are multiplied by log2(e) once, and stay so.
    Seen: flashinfer-ai/flashinfer#2113.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s) / math.log(2)))


def lse_times_ln_2(q, k, v, causal=True, mask=None, tile=64):
    """lse is multiplied by ln 2, as if it had been a logarithm to the base 2.

    Tempting: it was one in the kernel of before.
    Seen: pytorch/pytorch#181645.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s) * math.log(2)))


def largest_in_lse_not_scaled(q, k, v, causal=True, mask=None, tile=64):
    """lse is made of the largest product before it is divided by sqrt(head_dim), and of the sum of scaled scores.

    Tempting: the maximum is looked for in the products, and the scale goes into exp with the difference.
    """

    def unscaled(q, state):
        return (state.largest * math.sqrt(q.shape[-1]) + state.total.log())[..., 0]

    return _attend(q, k, v, causal, mask, tile, end=_with_lse(unscaled))


def lse_in_the_dtype_of_q(q, k, v, causal=True, mask=None, tile=64):
    """lse is rounded to the dtype of q, in half precision to some three digits.

    Tempting: both results are converted in one line.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda q, s: _lse(s).to(q.dtype)))


def lse_always_float32(q, k, v, causal=True, mask=None, tile=64):
    """lse is float32 even where everything else is float64.

    Tempting: it is said to be float32, and so it is wherever anybody uses it.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s).float()))


def lse_with_queries_before_heads(q, k, v, causal=True, mask=None, tile=64):
    """lse is [batch q_len n_heads]: heads and queries have changed places.

    Tempting: some kernels have it so, and in a flat array of numbers nobody sees it.
    Seen: vllm-project/vllm-xpu-kernels#479.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s).transpose(1, 2).contiguous()))


def lse_with_an_axis_of_one(q, k, v, causal=True, mask=None, tile=64):
    """lse is [batch n_heads q_len 1]: the axis that was kept for broadcasting is still there.

    Tempting: keepdim=True makes every line of the loop simpler.
    """
    return _attend(q, k, v, causal, mask, tile, end=_with_lse(lambda _, s: _lse(s)[..., None]))


def last_tile_dropped(q, k, v, causal=True, mask=None, tile=64):
    """the keys that do not fill the last tile are left out.

    Tempting: kv_len // tile is the number of tiles, for every length that a benchmark tries.
    """
    return _attend(q, k, v, causal, mask, tile, tiles=lambda n, tile: _tiles(n // tile * tile, tile))


def last_tile_dropped_where_causal(q, k, v, causal=True, mask=None, tile=64):
    """where causal, the keys that do not fill the last tile are left out.

    Tempting: how many tiles the last query needs is computed in another place, and rounded down there.
    Seen: flashinfer-ai/flashinfer#1148.
    """

    def tiles(kv_len, tile):
        return _tiles(kv_len // tile * tile if causal else kv_len, tile)

    return _attend(q, k, v, causal, mask, tile, tiles=tiles)


def last_tile_hidden_where_it_is_full(q, k, v, causal=True, mask=None, tile=64):
    """where tile divides kv_len, the whole last tile is left out.

    Tempting: of the last tile kv_len % tile keys are valid, and here that is none.
    """
    return _attend(q, k, v, causal, mask, tile, tiles=lambda n, tile: _tiles(n, tile)[: -1 if n % tile == 0 else None])


def last_tile_padded(q, k, v, causal=True, mask=None, tile=64):
    """the zeros that fill up the last tile take part as keys with a score of 0, unless causal hides them.

    Tempting: zeros add nothing to a sum, but exp(0) is 1.
    Seen: flashinfer-ai/flashinfer#5090.
    """

    def add(state, scores, visible, values):
        missing = tile - scores.shape[-1]
        scores, visible = F.pad(scores, (0, missing)), F.pad(visible, (0, missing), value=not causal)
        return _add(state, scores, visible, F.pad(values, (0, 0, 0, missing)))

    return _attend(q, k, v, causal, mask, tile, add=add)


def last_tile_moved_back(q, k, v, causal=True, mask=None, tile=64):
    """the last tile is moved back until it is full, so that some keys count twice.

    Tempting: a slice that would end behind the last key is moved to where it fits, without a word.
    """

    def tiles(kv_len, tile):
        starts = [max(0, min(start, kv_len - tile)) for start in range(0, kv_len, tile)]
        return [(start, min(start + tile, kv_len)) for start in starts]

    return _attend(q, k, v, causal, mask, tile, tiles=tiles)


def tiles_after_the_first_query_skipped(q, k, v, causal=True, mask=None, tile=64):
    """where causal, tiles that begin after the position of the first query are skipped, though later queries see them.

    Tempting: one question decides for the whole block of queries, and it is asked of the wrong end.
    """

    def tiles(kv_len, tile):
        return [t for t in _tiles(kv_len, tile) if not causal or t[0] <= kv_len - q.shape[2]]

    return _attend(q, k, v, causal, mask, tile, tiles=tiles)


def causal_within_each_tile(q, k, v, causal=True, mask=None, tile=64):
    """the causal mask counts the keys of every tile from 0, so that keys of later tiles are visible too early.

    Tempting: the mask of a tile is made from the sizes of the tile, and the first tile is right.
    """

    def visible(q, k, causal, mask, start, end):
        of_causal = _by_causal(q, k, 0, end - start) if causal else _visible(q, k, False, None, start, end)
        return of_causal if mask is None else of_causal & _of_mask(mask, start, end)

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def causal_by_whole_tiles(q, k, v, causal=True, mask=None, tile=64):
    """where causal, a query sees the whole of the tile in which its own position lies, and all before it.

    Tempting: tiles that lie in the future are skipped, and the one on the diagonal is forgotten.
    """

    def visible(q, k, causal, mask, start, end):
        of_causal = _visible(q, k, causal, None, start, end)[:, :1].expand(-1, end - start)
        return of_causal if mask is None else of_causal & _of_mask(mask, start, end)

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def causal_at_the_first_key(q, k, v, causal=True, mask=None, tile=64):
    """the causal mask is aligned at the first key, so that with a cache the newest query sees the oldest keys.

    Tempting: query t sees keys 0 to t, which is right as long as there are as many queries as keys.
    Seen: gittensor-ai-lab/sparkinfer#3, tile-ai/tilelang#864.
    """

    def visible(q, k, causal, mask, start, end):
        return _visible(q, k[:, :, : q.shape[2]], causal, None, start, end) & _visible(q, k, False, mask, start, end)

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def causal_ignored(q, k, v, causal=True, mask=None, tile=64):
    """causal is ignored: every query sees all keys that the mask shows.

    Tempting: the loop over the tiles is complete without it, and nothing fails.
    """
    return _attend(q, k, v, False, mask, tile)


def not_causal_with_mask(q, k, v, causal=True, mask=None, tile=64):
    """causal is ignored where a mask is given, so that the mask alone decides.

    Tempting: a tile is hidden by one thing or the other, in an if and an else.
    """
    return _attend(q, k, v, causal and mask is None, mask, tile)


def mask_ignored(q, k, v, causal=True, mask=None, tile=64):
    """the mask is ignored.

    Tempting: it is None in most calls, and causal seems to be mask enough.
    """
    return _attend(q, k, v, causal, None, tile)


def mask_inverted(q, k, v, causal=True, mask=None, tile=64):
    """the mask is read the wrong way round: True hides a key instead of showing it.

    Tempting: so it is in masked_fill.
    """
    return _attend(q, k, v, causal, None if mask is None else ~mask, tile)


def mask_of_the_first_tile(q, k, v, causal=True, mask=None, tile=64):
    """every tile is masked by the part of the mask that belongs to the first one.

    Tempting: keys and values move on from tile to tile, and the third pointer is forgotten.
    """

    def visible(q, k, causal, mask, start, end):
        of_causal = _visible(q, k, causal, None, start, end)
        return of_causal if mask is None else of_causal & _of_mask(mask, 0, end - start)

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def mask_of_one_key_in_the_first_tile_alone(q, k, v, causal=True, mask=None, tile=64):
    """a mask whose axis of keys has size one counts in the first tile alone; all later ones are seen.

    Tempting: the mask is cut as the keys are, and behind its only column there is nothing.
    """

    def visible(q, k, causal, mask, start, end):
        ended = mask is not None and mask.shape[-1] == 1 and start > 0
        return _visible(q, k, causal, None if ended else mask, start, end)

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def groups_tiled(q, k, v, causal=True, mask=None, tile=64):
    """the key heads are tiled: query head h reads key head h % n_kv_heads instead of h // groups.

    Tempting: repeat is shorter than repeat_interleave, and with one key head, or no groups, they agree.
    Seen: Dao-AILab/flash-attention#648.
    """
    repeated = lambda q, k: k.repeat(1, q.shape[1] // k.shape[1], 1, 1)  # noqa: E731
    return _attend(q, k, v, causal, mask, tile, repeated=repeated)


def scale_forgotten(q, k, v, causal=True, mask=None, tile=64):
    """the scores are not scaled at all.

    Tempting: the scale is an argument of the kernel, and its default is 1.
    """
    return _attend(q, k, v, causal, mask, tile, scores=lambda q, keys: _wide(q) @ keys.mT)


def scaled_by_head_dim(q, k, v, causal=True, mask=None, tile=64):
    """the scores are divided by head_dim, not by its square root.

    Tempting: dividing a sum of n products by n is a mean; only their spread grows like the root.
    """
    return _attend(q, k, v, causal, mask, tile, scores=lambda q, keys: _wide(q) @ keys.mT / q.shape[-1])


def divided_in_each_tile(q, k, v, causal=True, mask=None, tile=64):
    """y is divided by the sum so far after every tile, and not once at the end.

    Tempting: after each tile y is what it should be if this were the last one.
    Seen: 1bit-MONSTER/1bit-MONSTER#495.
    """

    def add(state, scores, visible, values):
        largest, total, y = _add(state, scores, visible, values)
        return _State(largest, total, y / total.masked_fill(total == 0, 1))

    return _attend(q, k, v, causal, mask, tile, add=add, end=lambda q, s: (s.y.to(q.dtype), _lse(s)))


def never_divided(q, k, v, causal=True, mask=None, tile=64):
    """y is not divided by the sum.

    Tempting: a softmax divides by itself, and here there is none.
    """
    return _attend(q, k, v, causal, mask, tile, end=lambda q, s: (s.y.to(q.dtype), _lse(s)))


def mean_of_the_tiles(q, k, v, causal=True, mask=None, tile=64):
    """each tile has a softmax of its own, and y is the mean of what the tiles give, whatever their sums; lse is right.

    Tempting: attention is a mean, and a mean of means looks like one.
    """
    counted = [0]

    def add(state, scores, visible, values):
        of_tile = _end(q, _add(_begin(q), scores, visible, values))
        counted[0] = counted[0] + visible.any(dim=-1, keepdim=True).expand_as(state.total).to(state.y.dtype)
        largest, total, _ = _add(state, scores, visible, values)
        return _State(largest, total, state.y + _wide(of_tile[0]))

    def end(q, state):
        return (state.y / (counted[0] + torch.zeros_like(state.y)).clamp(min=1)).to(q.dtype), _lse(state)

    return _attend(q, k, v, causal, mask, tile, add=add, end=end)


def summed_in_half_precision(q, k, v, causal=True, mask=None, tile=64):
    """the sums over the tiles are kept in the dtype of q, where that of many small terms stops growing.

    Tempting: it halves the registers; the powers of a tile are exact, and so is what they are added to, one thinks.
    Seen: ggml-org/llama.cpp#13975, ikawrakow/ik_llama.cpp#2144.
    """

    def add(state, scores, visible, values):
        largest, total, y = _add(state, scores, visible, values)
        return _State(largest, _wide(total.to(q.dtype)), _wide(y.to(q.dtype)))

    return _attend(q, k, v, causal, mask, tile, add=add)


def values_summed_in_float16(q, k, v, causal=True, mask=None, tile=64):
    """the values of a tile are summed in the dtype of v, which in float16 overflows where they are large: the sum is
    not divided yet.

    Tempting: kernels multiply powers and values in half precision, and their registers for the sums are float32.
    """

    def add(state, scores, visible, values):
        scores = _hidden(scores, visible)
        largest = _largest(state, scores)
        factor, powers = _powers(state, largest, scores)
        total = factor * state.total + powers.sum(dim=-1, keepdim=True)
        return _State(largest, total, factor * state.y + _wide(powers.to(q.dtype) @ values.to(q.dtype)))

    return _attend(q, k, v, causal, mask, tile, add=add)


def products_in_float16(q, k, v, causal=True, mask=None, tile=64):
    """the products are computed in the dtype of q and only then scaled, which in float16 overflows above 65,504.

    Tempting: the sums are in float32 already, and in all other dtypes nothing happens.
    """

    def scores(q, keys):
        return _wide(q @ keys.to(q.dtype).mT) / math.sqrt(q.shape[-1])

    return _attend(q, k, v, causal, mask, tile, scores=scores)


def scores_all_at_once(q, k, v, causal=True, mask=None, tile=64):
    """all scores of a query are there at once, whatever the tile: the values are right, the memory is not.

    Tempting: one product and one softmax are shorter than a loop, and the results are the same.
    Seen: pytorch/pytorch#133206.
    """
    return _attend(q, k, v, causal, mask, tile, tiles=lambda kv_len, _: [(0, kv_len)] if kv_len else [])


def mask_made_whole(q, k, v, causal=True, mask=None, tile=64):
    """a mask is copied out for all heads, queries and keys before the first tile, which takes as much as all scores.

    Tempting: once it has its full shape it can be cut in tiles without a thought about its axes.
    Seen: vllm-project/vllm-gaudi#784.
    """
    if mask is not None:
        mask = mask.expand(*q.shape[:3], k.shape[2]).clone(memory_format=torch.contiguous_format)
    return _attend(q, k, v, causal, mask, tile)


def causal_mask_made_whole(q, k, v, causal=True, mask=None, tile=64):
    """the causal mask is made for all queries and keys before the first tile.

    Tempting: tril makes it in one line, and of booleans there may be many, one thinks.
    """
    lower = _by_causal(q, k, 0, k.shape[2]) if causal else None

    def visible(q, k, causal, mask, start, end):
        own = _visible(q, k, False, mask, start, end)
        return own if lower is None else own & lower[:, start:end]

    return _attend(q, k, v, causal, mask, tile, visible=visible)


def queries_scaled_in_place(q, k, v, causal=True, mask=None, tile=64):
    """the queries are scaled in place, so that the caller's have changed.

    Tempting: q /= sqrt(head_dim) saves a copy.
    """
    q /= math.sqrt(q.shape[-1])
    return _attend(q, k, v, causal, mask, tile, scores=lambda q, keys: _wide(q) @ keys.mT)


_PLACES = {}


def lse_in_one_place(q, k, v, causal=True, mask=None, tile=64):
    """lse lies in memory that the next call of the same shape writes to.

    Tempting: it is a by-product, and all layers of a model need one of the same shape.
    """
    y, lse = _attend(q, k, v, causal, mask, tile)
    place = _PLACES.setdefault((lse.shape, lse.dtype, lse.device), torch.empty_like(lse))
    return y, place.copy_(lse)


def strides_of_the_queries_ignored(q, k, v, causal=True, mask=None, tile=64):
    """the queries are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come fresh out of a product; the heads of a model are transposed.
    Seen: Dao-AILab/flash-attention#2670.
    """
    return _attend(as_if_contiguous(q), k, v, causal, mask, tile)


def strides_of_the_values_ignored(q, k, v, causal=True, mask=None, tile=64):
    """the values are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: both come out of the same projection, and what is done for k is taken to be done for v.
    """
    return _attend(q, k, as_if_contiguous(v), causal, mask, tile)


def strides_of_the_mask_ignored(q, k, v, causal=True, mask=None, tile=64):
    """the mask is read in the order of its memory, which is another where it is expanded or transposed.

    Tempting: a mask is made for the call; but expand is how one mask serves all heads.
    """
    return _attend(q, k, v, causal, None if mask is None else as_if_contiguous(mask), tile)
