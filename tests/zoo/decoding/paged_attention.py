"""The bugs that people make in paged_attention."""

import math

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def _held(key_pages, table, lengths):
    """Which of the positions that a row of the table has room for belong to the sequence."""
    return torch.arange(table.shape[1] * key_pages.shape[2], device=table.device) < lengths[:, None]


def _named(table, held, n_pages):
    """The pages of the table; where nothing is held, and where there is no such page, page 0."""
    page_size = held.shape[1] // max(table.shape[1], 1)
    if page_size:
        table = table.masked_fill(~held[:, ::page_size], 0)
    return table.masked_fill((table < 0) | (table >= n_pages), 0)


def _read(q, pages, table, groups=None):
    """The slots of these pages behind each other, as [batch n_heads positions head_dim] in at least float32."""
    wide = torch.promote_types(q.dtype, torch.float32)
    found = pages[table].transpose(1, 2).flatten(2, 3).to(wide)
    return found.repeat_interleave(q.shape[1] // pages.shape[1], dim=1) if groups is None else found[:, groups]


def _cleared(values, held):
    return values.masked_fill(~held[:, None, :, None], 0)


def _scores(q, keys):
    return (keys @ q.to(keys.dtype)[..., None])[..., 0] / math.sqrt(q.shape[-1])


def _softmax(scores, held):
    scores = scores.masked_fill(~held[:, None], -torch.inf)
    if scores.shape[-1] == 0:
        return scores
    largest = scores.amax(dim=-1, keepdim=True)
    powers = torch.exp(scores - largest.masked_fill(largest == -torch.inf, 0))
    return powers / powers.sum(dim=-1, keepdim=True).clamp(min=1)


def _mix(q, weights, values):
    return (weights[..., None, :] @ values)[..., 0, :].to(q.dtype)


def _attend(q, key_pages, value_pages, table, held, groups=None):
    """Attention over what is held; a right layer where `held` and `table` are right."""
    table = _named(table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table, groups), held) for of in (key_pages, value_pages))
    return _mix(q, _softmax(_scores(q, keys), held), values)


def _right(q, key_pages, value_pages, page_table, lengths):
    return _attend(q, key_pages, value_pages, page_table, _held(key_pages, page_table, lengths))


def _make(
    page_size=2,
    lengths=(3, 4),
    max_pages=3,
    of=(1, 1),
    features=2,
    n_pages=None,
    dtype=None,
    beyond=None,
    scale=1.0,
    lift=0.0,
):
    """A call in which no sequence begins with page 0, and each page belongs to one sequence.

    `beyond` is what slots beyond the lengths hold, `scale` makes scores large, and `lift` is added to every key.
    """
    (n_kv_heads, groups), batch = of, len(lengths)
    n_pages = n_pages or batch * max_pages + 1
    table = (torch.arange(batch * max_pages) * 5 + n_pages - 1) % n_pages
    table = target.tensor(table.view(batch, max_pages))
    shape = (n_pages, n_kv_heads, page_size, features)
    count = math.prod(shape)
    q = target.tensor(torch.linspace(1, 2, batch * n_kv_heads * groups * features).view(batch, -1, features), dtype)
    keys, values = (target.tensor(torch.linspace(-2, 3 + i, count).square().sin().view(shape), dtype) for i in range(2))
    keys = scale * keys + lift
    lengths = target.tensor(list(lengths))
    if beyond is not None:
        held = torch.arange(max_pages * page_size, device=q.device) < lengths[:, None]
        read = torch.zeros(n_pages, page_size, dtype=torch.bool, device=q.device)
        read[table] = held.view(batch, max_pages, page_size)
        for pages in (keys, values):
            pages.transpose(1, 2)[~read] = beyond
        table = table.masked_fill(~held[:, ::page_size], -1)
    return [q, keys, values, table, lengths]


def probes():
    """Lengths at the ends of pages, pages shared and far apart, slots that nobody wrote to, and other layouts."""

    def call(**how):
        return lambda paged_attention: paged_attention(*_make(**how))

    def of_one_row(values, page_size, table, length, keys=None, query=1.0, dtype=None):
        def probe(paged_attention):
            pages = target.tensor(values, dtype).view(-1, 1, page_size, 1)
            of_keys = torch.zeros_like(pages) if keys is None else target.tensor(keys, dtype).view(pages.shape)
            q = target.tensor([[[query]]] * len(length), dtype)
            return paged_attention(q, of_keys, pages, target.tensor(table), target.tensor(length))

        return probe

    def in_columns(paged_attention):
        q, key_pages, value_pages, table, lengths = _make()
        key_pages, value_pages = (of.mT.contiguous().mT for of in (key_pages, value_pages))
        return paged_attention(q, key_pages, value_pages, table, lengths)

    def slice_of_a_table(paged_attention):
        q, key_pages, value_pages, table, lengths = _make()
        return paged_attention(q, key_pages, value_pages, torch.cat((table, table.flip(1)), dim=1)[:, :3], lengths)

    def looked_at_afterwards(paged_attention):
        args = _make(beyond=math.nan)
        return [paged_attention(*args), *(of.nan_to_num(7.0) for of in args[1:3])]

    def next_step(key_pages, value_pages):
        key_pages += 1
        value_pages *= 2

    def far_page(paged_attention):
        pages = torch.zeros(65540, 1, 1, 1, device=target.DEVICE)
        pages[65537], pages[1] = 3.0, 5.0
        q = target.tensor([[[1.0]]])
        return paged_attention(q, torch.zeros_like(pages), pages, target.tensor([[65537]]), target.tensor([1]))

    def long(paged_attention):
        return paged_attention(*_make(page_size=16, lengths=(4100, 4200), max_pages=264))[..., :1]

    def empty_after_another(paged_attention):
        q, key_pages, value_pages, table, lengths = _make()
        before = paged_attention(q.clone(), key_pages, value_pages, table, lengths)
        return [paged_attention(q, key_pages, value_pages, table, torch.zeros_like(lengths)), before]

    return [
        call(),
        call(lengths=(2, 4)),
        call(lengths=(0, 6)),
        call(lengths=(0, 3), beyond=math.nan),
        call(lengths=(1, 5, 4), beyond=math.nan),
        call(page_size=3, lengths=(4, 7), beyond=math.nan),
        call(page_size=3, lengths=(5, 9), of=(2, 3)),
        call(page_size=4, lengths=(6, 11), of=(3, 2), features=5),
        call(lengths=(3, 5), features=260),
        call(page_size=4, lengths=(9, 7), scale=2000.0, features=1),
        call(page_size=4, lengths=(9, 7), scale=200.0, lift=-40_000.0, features=1),
        call(page_size=4, lengths=(600, 513), max_pages=160, scale=3.0),
        call(lengths=(3, 4), scale=2000.0, features=64, dtype=torch.float16),
        of_one_row([6.0, 12.0, 30.0, 42.0], 2, [[1, 0], [1, 0]], [3, 2]),
        of_one_row([6.0, 12.0, 30.0, 42.0], 2, [[1, 1]], [3]),
        in_columns,
        slice_of_a_table,
        looked_at_afterwards,
        far_page,
        long,
        empty_after_another,
        again(_make, lambda q, key_pages, value_pages, table, lengths: next_step(key_pages, value_pages)),
        again(_make, lambda q, key_pages, value_pages, table, lengths: lengths.copy_(lengths.flip(0))),
    ]


def page_table_ignored(q, key_pages, value_pages, page_table, lengths):
    """the table is not looked at: every sequence reads the pages in the order in which they lie, from page 0 on.

    Tempting: a cache with one sequence, freshly filled, lies in that order.
    Seen: golang-design/accel#10.
    """
    held = _held(key_pages, page_table, lengths)
    in_order = torch.arange(page_table.shape[1], device=q.device) % len(key_pages)
    return _attend(q, key_pages, value_pages, in_order.expand_as(page_table), held)


def every_second_page_taken_for_the_next(q, key_pages, value_pages, page_table, lengths):
    """pages are read two at a time: the table is asked for the first of two, and the second is the one behind it.

    Tempting: one load of twice the size; and pages that were taken one after another do lie so.
    Seen: hw-native-sys/pypto#470.
    """
    held, table = _held(key_pages, page_table, lengths), page_table.clone()
    table[:, 1::2] = (table[:, : table.shape[1] // 2 * 2 : 2] + 1) % len(key_pages)
    return _attend(q, key_pages, value_pages, table, held)


def first_row_of_the_table(q, key_pages, value_pages, page_table, lengths):
    """every sequence reads the pages of the first one.

    Tempting: the row is found by the number of the query within its sequence, which is 0 for all of them.
    Seen: quic/efficient-transformers#1209 (where the cache is written to).
    """
    held = _held(key_pages, page_table, lengths)
    return _attend(q, key_pages, value_pages, page_table[:1].expand_as(page_table), held)


def longest_length_for_all(q, key_pages, value_pages, page_table, lengths):
    """all sequences are read as far as the longest one.

    Tempting: max_seqlen is what the grid needs, and one number is easier to pass than one for each.
    """
    longest = lengths.amax().expand_as(lengths) if len(lengths) else lengths
    return _right(q, key_pages, value_pages, page_table, longest)


def last_page_read_to_its_end(q, key_pages, value_pages, page_table, lengths):
    """a sequence is read to the end of its last page.

    Tempting: whole pages are what is loaded, and what nobody wrote to ought to be zero.
    Seen: hw-native-sys/simpler#72, vllm-project/vllm#47305.
    """
    page_size = max(key_pages.shape[2], 1)
    return _right(q, key_pages, value_pages, page_table, -(-lengths // page_size) * page_size)


def page_too_many_where_the_last_is_full(q, key_pages, value_pages, page_table, lengths):
    """where a sequence ends with its page, the whole next page is read too.

    Tempting: length // page_size + 1 pages are right for every other length, and the next page is allocated already.
    Seen: pegainfer-project/pegainfer#291.
    """
    page_size = max(key_pages.shape[2], 1)
    full = (lengths % page_size == 0) & (lengths > 0)
    most = page_table.shape[1] * page_size
    return _right(q, key_pages, value_pages, page_table, (lengths + page_size * full).clamp(max=most))


def one_position_too_many(q, key_pages, value_pages, page_table, lengths):
    """position `length` is read too, the one behind the newest.

    Tempting: `position <= length`, where the length is taken for the number of the newest position.
    Seen: microsoft/onnxruntime-genai#2354 (by writing each token one slot too far).
    """
    most = page_table.shape[1] * key_pages.shape[2]
    return _right(q, key_pages, value_pages, page_table, (lengths + (lengths > 0)).clamp(max=most))


def newest_position_left_out(q, key_pages, value_pages, page_table, lengths):
    """the newest position is not read: a query does not see its own key.

    Tempting: lengths are those of before the step, and the new key is written in the same step.
    """
    return _right(q, key_pages, value_pages, page_table, (lengths - 1).clamp(min=0))


def last_page_dropped_unless_full(q, key_pages, value_pages, page_table, lengths):
    """only full pages are read: what lies in the last one is left out where that is not full.

    Tempting: length // page_size is the number of pages, for every length that a benchmark tries.
    """
    page_size = max(key_pages.shape[2], 1)
    return _right(q, key_pages, value_pages, page_table, lengths // page_size * page_size)


def slots_behind_the_newest_as_zeros(q, key_pages, value_pages, page_table, lengths):
    """the slots behind the newest position are set to zero, and then take part as keys with a score of 0.

    Tempting: zeros add nothing to a sum, but exp(0) is 1.
    """
    page_size = max(key_pages.shape[2], 1)
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table), held) for of in (key_pages, value_pages))
    whole = _held(key_pages, page_table, -(-lengths // page_size) * page_size)
    return _mix(q, _softmax(_scores(q, keys), whole), values)


def unread_values_times_zero(q, key_pages, value_pages, page_table, lengths):
    """the values behind the newest position are multiplied by weights of zero, so that a NaN among them makes all NaN.

    Tempting: a weight of zero hides any number; but 0 · NaN is NaN, and memory that nobody wrote to may hold it.
    Seen: vllm-project/vllm#936, vllm-project/vllm#53856.
    """
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    return _mix(q, _softmax(_scores(q, _read(q, key_pages, table)), held), _read(q, value_pages, table))


def hidden_at_minus_10000(q, key_pages, value_pages, page_table, lengths):
    """the scores behind the newest position are set to -10,000, which is not the lowest where others are lower still.

    Tempting: it is far below any usual score, and -inf makes NaN where a sequence has no positions.
    """
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table), held) for of in (key_pages, value_pages))
    scores = _scores(q, keys).masked_fill(~held[:, None], -1e4)
    return _mix(q, scores.softmax(-1) * (lengths > 0)[:, None, None], values)


def nothing_is_nan(q, key_pages, value_pages, page_table, lengths):
    """a sequence of length 0 gives NaN.

    Tempting: the sum of its weights is 0, and everything is divided by it; only padding has no positions.
    Seen: vllm-project/vllm#57094, sgl-project/sglang#1779.
    """
    y = _right(q, key_pages, value_pages, page_table, lengths)
    return y.masked_fill((lengths == 0)[:, None, None], torch.nan)


def nothing_read_as_one_position(q, key_pages, value_pages, page_table, lengths):
    """a sequence of length 0 is read as one of length 1.

    Tempting: it has no NaN, and the result of padding is thrown away.
    Seen: vllm-project/vllm#38436 (on purpose).
    """
    most = page_table.shape[1] * key_pages.shape[2]
    return _right(q, key_pages, value_pages, page_table, lengths.clamp(min=min(1, most)))


_RESULTS = {}


def nothing_is_what_stood_there(q, key_pages, value_pages, page_table, lengths):
    """for a sequence of length 0 nothing is written, so that it gets what its place in memory held: an earlier result.

    Tempting: there is nothing to compute, and the block of threads returns at once.
    Seen: vllm-project/vllm#37442.
    """
    key = q.shape, q.dtype, q.device
    place = _RESULTS.setdefault(key, torch.zeros(q.shape, dtype=q.dtype, device=q.device))
    y = _right(q, key_pages, value_pages, page_table, lengths)
    place.copy_(torch.where((lengths > 0)[:, None, None], y, place))
    return place.clone()


_PLACES = {}


def result_in_one_place(q, key_pages, value_pages, page_table, lengths):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: decoding takes one step after another, always of one shape.
    """
    key = q.shape, q.dtype, q.device
    place = _PLACES.setdefault(key, torch.empty(q.shape, dtype=q.dtype, device=q.device))
    return place.copy_(_right(q, key_pages, value_pages, page_table, lengths))


_GATHERED = []


def gathered_once_for_a_table(q, key_pages, value_pages, page_table, lengths):
    """keys and values are gathered once, and kept while the table is the same object, whatever the pages hold by then.

    Tempting: a table changes every page_size steps only; but each step writes a slot.
    """
    held = _held(key_pages, page_table, lengths)
    kind = q.dtype, q.shape, key_pages.shape
    if not (_GATHERED and _GATHERED[0] is page_table and _GATHERED[1] == kind):
        everything = torch.ones_like(held)
        table = _named(page_table, everything, len(key_pages))
        _GATHERED[:] = page_table, kind, *(_read(q, of, table) for of in (key_pages, value_pages))
    keys, values = (_cleared(of, held) for of in _GATHERED[2:])
    return _mix(q, _softmax(_scores(q, keys), held), values)


def unread_slots_cleared_in_the_pages(q, key_pages, value_pages, page_table, lengths):
    """what nobody may read of a sequence's last page is set to zero in the pages themselves.

    Tempting: it is memory that nobody uses; but another sequence may share the page, and has more of it.
    """
    page_size = max(key_pages.shape[2], 1)
    y = _right(q, key_pages, value_pages, page_table, lengths)
    for row, length in zip(page_table, lengths.tolist(), strict=True):
        if length % page_size:
            for pages in (key_pages, value_pages):
                pages[row[length // page_size], :, length % page_size :] = 0
    return y


def page_of_one_sequence_only(q, key_pages, value_pages, page_table, lengths):
    """a page belongs to the last sequence that names it, and no other one sees what it holds.

    Tempting: a mask asks for the position of each slot, and one number for each page is all that a list can hold.
    """
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    page_size = max(key_pages.shape[2], 1)
    owner = torch.zeros(len(key_pages), dtype=torch.int64, device=q.device)
    for b, used in enumerate(held[:, ::page_size]):
        owner[table[b][used]] = b
    own = owner[table] == torch.arange(len(q), device=q.device)[:, None]
    return _attend(q, key_pages, value_pages, page_table, held & own.repeat_interleave(page_size, dim=1))


def page_of_one_place_only(q, key_pages, value_pages, page_table, lengths):
    """where a sequence names a page twice, only the later one counts.

    Tempting: the table is turned round, into the place of each page, and nobody needs a page twice.
    """
    held = _held(key_pages, page_table, lengths)
    page_size = max(key_pages.shape[2], 1)
    later = torch.zeros_like(page_table, dtype=torch.bool)
    used = held[:, ::page_size]
    for place in range(page_table.shape[1]):
        rest = (page_table[:, place + 1 :] == page_table[:, place : place + 1]) & used[:, place + 1 :]
        later[:, place] = rest.any(dim=1)
    return _attend(q, key_pages, value_pages, page_table, held & ~later.repeat_interleave(page_size, dim=1))


def unused_entries_refused(q, key_pages, value_pages, page_table, lengths):
    """an entry of the table that is no page is refused, even where no sequence uses it.

    Tempting: one comparison for the whole table; but rows are filled up with -1, or with what stood there.
    """
    if ((page_table < 0) | (page_table >= len(key_pages))).any():
        raise IndexError(f"paged_attention: page_table must lie in 0..{len(key_pages) - 1}")
    return _right(q, key_pages, value_pages, page_table, lengths)


def page_and_slot_by_bits(q, key_pages, value_pages, page_table, lengths):
    """page and slot of a position are found by a shift and a mask, which is right where page_size is a power of two.

    Tempting: it is faster than a division, and page sizes are 16 or 32.
    """
    page_size = key_pages.shape[2]
    if page_size == 0:
        return torch.zeros_like(q)
    held = _held(key_pages, page_table, lengths)
    positions = torch.arange(held.shape[1], device=q.device)
    pages = (positions >> (page_size.bit_length() - 1)).clamp(max=max(page_table.shape[1] - 1, 0))
    table, slots = _named(page_table, held, len(key_pages))[:, pages], positions & (page_size - 1)
    # Each slot as a page of its own.
    key_slots, value_slots = (of.transpose(1, 2).flatten(0, 1)[:, :, None] for of in (key_pages, value_pages))
    return _attend(q, key_slots, value_slots, table * page_size + slots, held)


def page_numbers_in_16_bits(q, key_pages, value_pages, page_table, lengths):
    """numbers of pages are kept in 16 bits: page 65,536 is page 0.

    Tempting: it is half a table, and caches have fewer pages, until these are small or the memory is large.
    Seen: flashinfer-ai/flashinfer#3136, vllm-project/vllm#47671 (in 32 bits, which the number times the stride needs).
    """
    return _right(q, key_pages, value_pages, page_table % 65536, lengths)


def strides_of_the_pages_ignored(q, key_pages, value_pages, page_table, lengths):
    """the pages are read in the order of their memory, which is another where they are a view of something larger.

    Tempting: a cache is allocated as it is read; but keys and values, or all layers, may share one allocation.
    Seen: ROCm/aiter#3498.
    """
    return _right(q, as_if_contiguous(key_pages), as_if_contiguous(value_pages), page_table, lengths)


def strides_of_the_table_ignored(q, key_pages, value_pages, page_table, lengths):
    """the table is read in the order of its memory, which is another where it is a slice of a wider one.

    Tempting: max_pages is its width; but it is cut from a table for the longest text that there may be.
    """
    return _right(q, key_pages, value_pages, as_if_contiguous(page_table), lengths)


def slots_before_heads(q, key_pages, value_pages, page_table, lengths):
    """a page is read as [page_size n_kv_heads head_dim]: slots and heads have changed places.

    Tempting: so the keys come out of their projection, and other caches are laid out that way.
    """
    n_pages, n_kv_heads, page_size, head_dim = key_pages.shape
    pages = [of.reshape(n_pages, page_size, n_kv_heads, head_dim).transpose(1, 2) for of in (key_pages, value_pages)]
    return _right(q, *pages, page_table, lengths)


def groups_tiled(q, key_pages, value_pages, page_table, lengths):
    """query head h reads key head h % n_kv_heads instead of h // groups.

    Tempting: repeat is shorter than repeat_interleave, and with one key head, or no groups, they agree.
    """
    heads = torch.arange(q.shape[1], device=q.device) % key_pages.shape[1]
    return _attend(q, key_pages, value_pages, page_table, _held(key_pages, page_table, lengths), heads)


def heads_divided_by_their_number(q, key_pages, value_pages, page_table, lengths):
    """query head h reads key head h // n_kv_heads, where it should be h divided by the number of heads in a group.

    Tempting: where a group has as many heads as there are groups, both are the same.
    Seen: PSAL-POSTECH/ONNXim#34.
    """
    n_kv_heads = key_pages.shape[1]
    heads = (torch.arange(q.shape[1], device=q.device) // n_kv_heads).clamp(max=n_kv_heads - 1)
    return _attend(q, key_pages, value_pages, page_table, _held(key_pages, page_table, lengths), heads)


def scale_forgotten(q, key_pages, value_pages, page_table, lengths):
    """the scores are not divided by the square root of head_dim.

    Tempting: the kernel takes a scale, and its caller passes 1.
    """
    return _right(q * math.sqrt(q.shape[-1]), key_pages, value_pages, page_table, lengths)


def keys_averaged(q, key_pages, value_pages, page_table, lengths):
    """the mean is taken of the keys, and not of the values.

    Tempting: both caches have one shape and one table.
    """
    return _right(q, key_pages, key_pages, page_table, lengths)


def products_in_half_precision(q, key_pages, value_pages, page_table, lengths):
    """in half precision the scores are rounded to it, and beyond 65,504 float16 makes them infinite.

    Tempting: q and the pages have that dtype, and their product has it too.
    """
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table), held) for of in (key_pages, value_pages))
    products = (keys @ q.to(keys.dtype)[..., None])[..., 0].to(q.dtype).to(keys.dtype)
    return _mix(q, _softmax(products / math.sqrt(q.shape[-1]), held), values)


def largest_not_subtracted(q, key_pages, value_pages, page_table, lengths):
    """exp is taken of the scores as they are, which overflows above 88 in float32.

    Tempting: it is the formula of the paper.
    """
    held = _held(key_pages, page_table, lengths)
    table = _named(page_table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table), held) for of in (key_pages, value_pages))
    powers = _scores(q, keys).exp().masked_fill(~held[:, None], 0)
    return _mix(q, powers / powers.sum(dim=-1, keepdim=True).masked_fill((lengths == 0)[:, None, None], 1), values)


def sum_not_rescaled(q, key_pages, value_pages, page_table, lengths):
    """page after page, what was summed so far is not rescaled when a larger score comes up.

    Tempting: the correction is a factor of 1 until it is not.
    """
    held = _held(key_pages, page_table, lengths)
    if held.shape[1] == 0:
        return torch.zeros_like(q)
    table = _named(page_table, held, len(key_pages))
    keys, values = (_cleared(_read(q, of, table), held) for of in (key_pages, value_pages))
    scores, page_size = _scores(q, keys).masked_fill(~held[:, None], -torch.inf), key_pages.shape[2]
    largest, total, y = -torch.inf, 0, 0
    for page, value in zip(scores.split(page_size, dim=-1), values.split(page_size, dim=-2), strict=True):
        new = page.amax(dim=-1, keepdim=True).clamp(min=largest)
        powers = torch.exp(page - new.masked_fill(new == -torch.inf, 0))
        largest, total = new, total + powers.sum(dim=-1, keepdim=True)
        y = y + (powers[..., None, :] @ value)[..., 0, :]
    return (y / total.masked_fill(total == 0, 1)).to(q.dtype)


def mean_for_each_page(q, key_pages, value_pages, page_table, lengths):
    """each page has a softmax of its own, and the results of the pages are averaged.

    Tempting: one page after another is how a cache is read, and with one page it is right.
    """
    held = _held(key_pages, page_table, lengths)
    page_size, max_pages = max(key_pages.shape[2], 1), page_table.shape[1]
    pages = [held & (torch.arange(held.shape[1], device=q.device) // page_size == i) for i in range(max_pages)]
    y = sum((_attend(q, key_pages, value_pages, page_table, page).double() for page in pages), torch.zeros_like(q))
    count = held[:, ::page_size].sum(dim=1).clamp(min=1)
    return (y / count[:, None, None]).to(q.dtype)


def parts_of_512_averaged(q, key_pages, value_pages, page_table, lengths):
    """beyond 512 positions parts of 512 are attended to separately, and averaged as if all had the same weight.

    Tempting: the parts are put together in a second kernel, to which their sums have to be passed too.
    """
    held, parts = _held(key_pages, page_table, lengths), []
    if held.shape[1] <= 512:
        return _attend(q, key_pages, value_pages, page_table, held)
    part_of = torch.arange(held.shape[1], device=q.device) // 512
    for part in range(int(part_of[-1]) + 1):
        parts.append(_attend(q, key_pages, value_pages, page_table, held & (part_of == part)).double())
    count = (-(-lengths // 512)).clamp(min=1)
    return (sum(parts) / count[:, None, None]).to(q.dtype)


def long_sequences_after_the_first_not_written(q, key_pages, value_pages, page_table, lengths):
    """where a sequence has more than 4,096 positions, only the first sequence gets a result; the others are zeros.

    Tempting: a long cache is split, and the parts are put together with a stride between sequences that nobody set.
    Seen: pytorch/pytorch#194167.
    """
    y = _right(q, key_pages, value_pages, page_table, lengths)
    if len(lengths) and lengths.amax() > 4096:
        y[1:] = 0
    return y


def window_of_4096(q, key_pages, value_pages, page_table, lengths):
    """only the last 4,096 positions are read.

    Tempting: Mistral's sliding window comes along with its code, which otherwise fits Llama.
    """
    held = _held(key_pages, page_table, lengths)
    within = torch.arange(held.shape[1], device=q.device) >= lengths[:, None] - 4096
    return _attend(q, key_pages, value_pages, page_table, held & within)


def features_beyond_256_not_compared(q, key_pages, value_pages, page_table, lengths):
    """query and keys are compared by their first 256 features.

    Tempting: 256 is the largest head_dim that kernels are made for.
    """
    held = _held(key_pages, page_table, lengths)
    few = q.masked_fill(torch.arange(q.shape[-1], device=q.device) >= 256, 0)
    return _attend(few, key_pages, value_pages, page_table, held)
