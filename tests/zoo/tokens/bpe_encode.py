"""The bugs that people make in bpe_encode."""

import heapq
import math
from collections import Counter
from itertools import pairwise

from llama import implementation
from llama.contract import unchecked

LAYERS = implementation.load("vectorized").changed(lambda _, layer: unchecked(layer))
BYTES = 256
GONE = -1
A, B, C, D = b"abcd"


def probes():
    """Calls that bugs differ in which the usual ones do not show, and what is kept between calls."""

    def the_same_word_with_other_merges(bpe_encode):
        return [bpe_encode(b"abc", [(A, B)]), bpe_encode(b"abc", [(B, C), (A, 256)])]

    def other_words_with_as_many_merges(bpe_encode):
        return [bpe_encode(b"ab", [(A, B)]), bpe_encode(b"bc", [(B, C)]), bpe_encode(b"cab", [(C, A)])]

    def a_list_that_grows(bpe_encode):
        merges = [(A, B)]
        first = bpe_encode(b"dab", merges)
        merges.append((D, 256))
        return [first, bpe_encode(b"dabdab", merges)]

    def a_result_that_is_changed(bpe_encode):
        first = bpe_encode(b"abd", [(A, B)])
        if isinstance(first, list):
            first.append(0)
        return bpe_encode(b"abd", [(A, B)])

    def merges_afterwards(bpe_encode):
        merges = [(A, B), (256, C)]
        return [bpe_encode(b"abcd", merges), merges]

    def deeply_nested(bpe_encode):
        return bpe_encode(b"a" + b"b" * 1000, [(A, B), *((made, B) for made in range(BYTES, BYTES + 999))])

    return [
        ((b"", [(A, B)]), {}),
        ((b"a", []), {}),
        ((b"cab", [(A, B), (C, A)]), {}),
        ((b"cab", [(A, B), (C, 256)]), {}),
        ((b"abc", [(B, C), (A, B), (257, C)]), {}),
        ((b"abcd", [(B, C), (A, B), (257, C)]), {}),
        ((b"abba", [(A, B)]), {}),
        ((b"abcd", [(B, C), (A, B), (C, D)]), {}),
        ((b"ababcab", [(B, C), (A, B)]), {}),
        ((b"abcb", [(B, C), (A, B)]), {}),
        ((b"aba", [(A, B), (B, A), (256, A), (A, 257)]), {}),
        ((b"aba", [(A, B), (B, A), (A, 257), (256, A)]), {}),
        ((b"aaaa aaa", [(A, A), (256, 256)]), {}),
        (("né".encode(), [(195, 169)]), {}),
        ((bytes([255, 0, 195]), [(255, 0)]), {}),
        ((b" a \n", [(32, A), (32, 10)]), {}),
        ((b"c" + b"ab" * 600, [(A, B)]), {}),
        ((bytes([0, A, 0]), [(0, A)]), {}),
        ((b"abcda", [(A, B), (256, C), (C, D)]), {}),
        the_same_word_with_other_merges,
        other_words_with_as_many_merges,
        a_list_that_grows,
        a_result_that_is_changed,
        merges_afterwards,
        deeply_nested,
    ]


def _id_of(merges):
    return {pair: made for made, pair in enumerate(merges, start=BYTES)}


def _spelled(word, merges):
    """The bytes of each id that is no longer than the word; nothing for the others, which may fill any memory."""
    known = [bytes([byte]) for byte in range(BYTES)]
    for left, right in merges:
        short = known[left] and known[right] and len(known[left]) + len(known[right]) <= len(word)
        known.append(known[left] + known[right] if short else b"")
    return known


def _first_id_of(word, merges):
    """By its bytes."""
    found = {}
    for i, spelled in enumerate(_spelled(word, merges)):
        if spelled:
            found.setdefault(spelled, i)
    return found


def _chosen(word, merges, choose):
    """One pair after another, which `choose` takes from those that are there and may be merged."""
    id_of, ids = _id_of(merges), list(word)
    while there := [pair for pair in pairwise(ids) if pair in id_of]:
        pair = choose(there, id_of)
        ids = LAYERS.bpe_merge(ids, pair, id_of[pair])
    return ids


def _each_once(word, merges, merge=LAYERS.bpe_merge):
    """The merges in their order, each once: this is right, too, since none is made possible by a later one."""
    ids = list(word)
    for made, pair in enumerate(merges, start=BYTES):
        ids = merge(ids, pair, made)
    return ids


def _queued(word, merges, stands=None, backwards=True):
    """A right layer with a queue of what can be merged, of which one part may be replaced."""
    id_of, ids = _id_of(merges), [GONE, *word, GONE]
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
    queue = [(id_of[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in id_of]
    heapq.heapify(queue)
    while queue:
        made, i = heapq.heappop(queue)
        j = after[i]
        pair = merges[made - BYTES]
        if not (stands(ids[i], pair) if stands else (ids[i], ids[j]) == pair):
            continue
        ids[i], ids[j] = made, GONE
        h, k = before[i], after[j]
        after[i], before[k] = k, i
        if backwards and (ids[h], made) in id_of:
            heapq.heappush(queue, (id_of[ids[h], made], h))
        if (made, ids[k]) in id_of:
            heapq.heappush(queue, (id_of[made, ids[k]], i))
    return [token for token in ids if token != GONE]


def longest_match(word, merges):
    """the longest token that the rest of the word begins with is taken, again and again, and no merges are made.

    Tempting: a list of tokens looks like a dictionary in which one looks words up.
    Seen: joshcarp/llm.go#2.
    """
    known = _first_id_of(word, merges)
    lengths = sorted({len(spelled) for spelled in known}, reverse=True)
    ids, at = [], 0
    while at < len(word):
        length = next(n for n in lengths if word[at : at + n] in known)
        ids.append(known[word[at : at + length]])
        at += length
    return ids


def fewest_tokens(word, merges):
    """the word is cut into as few tokens as spell it, whether merges lead there or not.

    Tempting: the purpose is to write a text with few tokens, and dynamic programming finds the fewest.
    """
    known = _first_id_of(word, merges)
    lengths = sorted({len(spelled) for spelled in known}, reverse=True)
    counts, last = [0], [0]
    for end in range(1, len(word) + 1):
        count, length = min(
            (counts[end - n] + 1, -n) for n in lengths if n <= end and word[end - n : end] in known
        )  # of equal counts, the longest last token
        counts.append(count)
        last.append(-length)
    ids, end = [], len(word)
    while end:
        ids.append(known[word[end - last[end] : end]])
        end -= last[end]
    return ids[::-1]


def first_pair_from_the_left(word, merges):
    """the first pair from the left that is in merges is merged, and not the first learned.

    Tempting: a loop over the word finds it first, and "may these two be merged?" seems to be all there is to ask.
    Seen: ztxz16/fastllm#715.
    """
    id_of, ids = _id_of(merges), []
    for byte in word:
        ids.append(byte)
        while len(ids) > 1 and (ids[-2], ids[-1]) in id_of:
            ids[-2:] = [id_of[ids[-2], ids[-1]]]
    return ids


def last_learned_first(word, merges):
    """of the pairs that are there the one that was learned last is merged first.

    Tempting: what was learned last makes the longest tokens; and a rank is taken for a score, of which more is better.
    """
    return _chosen(word, merges, lambda there, id_of: max(there, key=id_of.__getitem__))


def most_frequent_pair_first(word, merges):
    """of the pairs that are there the one that stands in the word most often is merged first.

    Tempting: that is how merges are learned; but there the counts are those of all words.
    """

    def choose(there, id_of):
        counts = Counter(there)
        return min(counts, key=lambda pair: (-counts[pair], id_of[pair]))

    return _chosen(word, merges, choose)


def smallest_pair_first(word, merges):
    """of the pairs that are there the one with the smallest ids is merged first.

    Tempting: among equally frequent pairs training takes the smallest; and min(pairs) needs no key.
    """
    return _chosen(word, merges, lambda there, id_of: min(there))


def whole_word_looked_up(word, merges):
    """a word that some token spells becomes that token, even if the merges lead elsewhere.

    Tempting: Llama 3's own tokenizer does it, which has tokens that no merges make; it is faster, and with merges that
    lead to the token it is the same.
    Seen: ggml-org/llama.cpp#7193 (where it was lacking, for Llama 3).
    """
    known = _first_id_of(word, merges)
    return [known[word]] if word in known else LAYERS.bpe_encode(word, merges)


def merged_where_the_bytes_are_a_token(word, merges):
    """two neighbours are merged if together they spell a token, even if that token is made of two others.

    Tempting: a table from bytes to ranks is all that tiktoken's files hold. After training it is mostly the same.
    Seen: karpathy/minbpe#11 (asked, of tiktoken).
    """
    known = _first_id_of(word, merges)
    parts = [bytes([byte]) for byte in word]
    while there := [known[both] for left, right in pairwise(parts) if (both := left + right) in known]:
        first, joined = min(there), []
        for part in parts:
            if joined and known.get(joined[-1] + part) == first:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return [known[part] for part in parts]


def ids_looked_up_by_bytes(word, merges):
    """the ids are looked up by what the tokens spell, so that of two ids of the same bytes one is never there.

    Tempting: GPT-2's code merges texts, and asks a dictionary for their ids at the end.
    """
    spelled = _spelled(word, merges)
    last = {text: i for i, text in enumerate(spelled)}
    return [last[spelled[i]] for i in LAYERS.bpe_encode(word, merges)]


def made_tokens_merged_no_further(word, merges):
    """only bytes are merged: what a merge has made stays as it is.

    Tempting: the pairs of the word are collected once, before the first merge.
    """
    return _each_once(word, merges, lambda ids, pair, made: _only_bytes(ids, pair, made))


def _only_bytes(ids, pair, made):
    return LAYERS.bpe_merge(ids, pair, made) if max(pair) < BYTES else ids


def one_merge_only(word, merges):
    """the first learned pair is merged, and then it ends.

    Tempting: an `if` in place of the `while`; with one merge in the test it is right.
    """
    there = [pair for pair in merges if pair in {*pairwise(word)}]
    return LAYERS.bpe_merge(list(word), there[0], _id_of(merges)[there[0]]) if there else list(word)


def first_occurrence_only(word, merges):
    """each merge is made at the first place only, and then the next one has its turn.

    Tempting: going through merges in order is right, if each is made everywhere before the next.
    """

    def once(ids, pair, made):
        at = next((i for i, there in enumerate(pairwise(ids)) if there == pair), None)
        return ids if at is None else [*ids[:at], made, *ids[at + 2 :]]

    return _each_once(word, merges, once)


def runs_cut_from_the_right(word, merges):
    """of three alike the last two are merged, since pairs are taken from the right.

    Tempting: whoever deletes from a list goes through it backwards, so that the places before stay.
    """

    def backwards(ids, pair, made):
        return LAYERS.bpe_merge(ids[::-1], pair[::-1], made)[::-1]

    return _each_once(word, merges, backwards)


def pairs_overlap(word, merges):
    """in a run of three alike both pairs are merged, so that the middle one is in two tokens.

    Tempting: all places of a pair are collected first, and each becomes the new id.
    """

    def overlapping(ids, pair, made):
        places = {i for i, there in enumerate(pairwise(ids)) if there == pair}
        return [made if i in places else id_ for i, id_ in enumerate(ids) if i in places or i - 1 not in places]

    return _each_once(word, merges, overlapping)


def pairs_in_either_order(word, merges):
    """two neighbours are merged in either order, ba as well as ab.

    Tempting: "these two beside each other" sounds like a set.
    """

    def either(ids, pair, made):
        joined = []
        for i in ids:
            if joined and {joined[-1], i} == {*pair}:
                joined[-1] = made
            else:
                joined.append(i)
        return joined

    return _each_once(word, merges, either)


def last_pair_missed(word, merges):
    """the pair at the very end is never looked at, and the last byte stays alone.

    Tempting: `range(len(ids) - 2)` keeps well away from the end.
    """
    return _each_once(word, merges, lambda ids, pair, made: LAYERS.bpe_merge(ids[:-1], pair, made) + ids[-1:])


def neighbour_before_not_looked_up(word, merges):
    """a new token is merged with what stands behind it, but never with what stood before it.

    Tempting: the word is read from the left, and what lies behind seems to be done.
    """
    return _queued(word, merges, backwards=False)


def pairs_of_before_are_merged(word, merges):
    """a pair from the queue is merged if its left token is still there, even if the right one was merged since.

    Tempting: a heap has no way to take out what is out of date, and a token that is gone is easy to see.
    """
    return _queued(word, merges, stands=lambda left, pair: left == pair[0])


def letters_in_place_of_bytes(word, merges):
    """the word is read as UTF-8, and its letters are taken for bytes.

    Tempting: as long as all is ASCII, a letter is a byte.
    Seen: paiml/aprender#2139.
    """
    ids = [ord(letter) for letter in word.decode("utf-8", errors="replace")]
    return _each_once(ids, merges)


def rank_0_taken_for_none(word, merges):
    """the first of merges is never made.

    Tempting: `if rank` asks whether there is one; but the first rank is 0, which is false.
    """
    ranks, ids = {pair: rank for rank, pair in enumerate(merges)}, list(word)
    while there := [rank for pair in pairwise(ids) if (rank := ranks.get(pair))]:
        ids = LAYERS.bpe_merge(ids, merges[min(there)], BYTES + min(there))
    return ids


def zero_bytes_lost(word, merges):
    """bytes that are 0 are lost.

    Tempting: what became part of its neighbour is marked with 0 or None, and filter(None, ids) takes both out.
    """
    return [*filter(None, LAYERS.bpe_encode(word, merges))]


def new_pairs_wait_for_the_next_round(word, merges):
    """in each round all pairs that stand there are merged in their order, and what that makes possible has to wait.

    Tempting: the pairs of the word are collected once for several merges, in place of once for each.
    """
    id_of, ids = _id_of(merges), list(word)
    while there := sorted({id_of[pair] for pair in pairwise(ids) if pair in id_of}):
        for made in there:
            ids = LAYERS.bpe_merge(ids, merges[made - BYTES], made)
    return ids


def new_ids_from_0(word, merges):
    """a merge makes the id that is its place in merges, as if there were no bytes before it.

    Tempting: enumerate counts from 0.
    """
    ids = list(word)
    for place, pair in enumerate(merges):
        ids = LAYERS.bpe_merge(ids, pair, place)
    return ids


def new_ids_from_257(word, merges):
    """the ids of merges are one too high, as if 256 were something else.

    Tempting: an end-of-text token wants an id, and the first that is free is 256.
    """
    return [i + (i >= BYTES) for i in LAYERS.bpe_encode(word, merges)]


def one_token_has_no_pair(word, merges):
    """it raises where a single token is left, or none: the smallest of no pairs is looked for.

    Tempting: min over the pairs with infinity for unknown ones; in long words there is always another pair.
    """
    id_of, ids = _id_of(merges), list(word)
    while True:
        pair = min(pairwise(ids), key=lambda there: id_of.get(there, math.inf))
        if pair not in id_of:
            return ids
        ids = LAYERS.bpe_merge(ids, pair, id_of[pair])


def spaces_stripped(word, merges):
    """spaces and line ends at both ends of the word are lost.

    Tempting: a text is split at its spaces, and strip() tidies up what is left.
    """
    return LAYERS.bpe_encode(word.strip(), merges)


def long_words_in_pieces(word, merges):
    """of a word longer than 1,024 bytes each 1,024 are encoded by themselves.

    Tempting: where each merge reads all of the word, long ones take minutes, and most words are short.
    Seen: openai/tiktoken#391 (proposed).
    """
    pieces = [word[at : at + 1024] for at in range(0, len(word), 1024)]
    return [i for piece in pieces for i in LAYERS.bpe_encode(piece, merges)]


def a_call_for_each_merge(word, merges):
    """each merge is a call within the one before, and where there are a thousand Python refuses.

    Tempting: "merge, and encode what comes out" is the shortest way to say it.
    """
    id_of = _id_of(merges)

    def encoded(ids):
        there = [id_of[pair] for pair in pairwise(ids) if pair in id_of]
        return encoded(LAYERS.bpe_merge(ids, merges[min(there) - BYTES], min(there))) if there else ids

    return encoded(list(word))


_BY_WORD = {}


def remembered_by_the_word(word, merges):
    """a word that was encoded before is not encoded again, whatever the merges are now.

    Tempting: the same words come again and again, and a tokenizer has one list of merges.
    """
    if word not in _BY_WORD:
        _BY_WORD[word] = LAYERS.bpe_encode(word, merges)
    return list(_BY_WORD[word])


_BY_COUNT = {}


def remembered_by_how_many_merges(word, merges):
    """merges of before are used as long as there are as many of them.

    Tempting: a list of merges only grows while it is learned, so that its length seems to say which one it is.
    """
    return LAYERS.bpe_encode(word, _BY_COUNT.setdefault(len(merges), list(merges)))


_OF_ONE_LIST = {}


def remembered_by_the_list(word, merges):
    """merges are read once for each list, and not again where that list has grown.

    Tempting: is it the same object? is a quick question, and a dictionary of thousands of pairs takes long to make.
    """
    if _OF_ONE_LIST.get("list") is not merges:
        _OF_ONE_LIST.update(list=merges, read=list(merges))
    return LAYERS.bpe_encode(word, _OF_ONE_LIST["read"])


_RESULTS = {}


def result_handed_out_again(word, merges):
    """the list that is remembered is itself returned, so that who changes it changes what comes next time.

    Tempting: functools.cache does that, and with results that nobody changes it is right.
    """
    key = word, tuple(merges)
    if key not in _RESULTS:
        _RESULTS[key] = LAYERS.bpe_encode(word, merges)
    return _RESULTS[key]


def merges_used_up(word, merges):
    """merges are taken out of the list one after another, so that it is empty afterwards.

    Tempting: a list of what is to be done, from which one takes the next.
    """
    ids, made = list(word), BYTES
    merges.reverse()
    while merges:
        ids = LAYERS.bpe_merge(ids, merges.pop(), made)
        made += 1
    return ids
