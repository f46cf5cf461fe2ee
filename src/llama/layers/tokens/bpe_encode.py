"""BPE encode: the tokens of a word are its bytes, merged in the order in which the merges were learned.

    ids = the bytes of the word
    as long as two neighbours in ids are a pair of merges:
        i   = the smallest i for which merges[i] stands in ids
        ids = bpe_merge(ids, merges[i], 256 + i)

    word, merges [(left id, right id)] -> ids

The ids 0..255 are the bytes, and merges[i] makes the id 256 + i. A pair is merged wherever it stands, from the left and
without overlap: with merges [(97, 97)], "aaa" becomes 256, 97. The empty word has no tokens.

Merges alone make tokens. The result is not always the fewest that spell the word, and a word that one token spells may
become several. (Llama 3's own tokenizer looks the whole word up first; this layer does not.) The merges need not come
from training: two ids may stand for the same bytes, and only the one whose pair stands there is meant.

Raises ValueError where merges[i] has an id outside 0..255 + i, and for a pair that occurs twice.
Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2; over bytes as
in Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

import heapq
from itertools import pairwise

from tokenizers.models import BPE

from llama.contract import check_merges, contract, unchecked
from llama.layers.tokens import bpe_merge

BYTES = 256
merge = unchecked(bpe_merge.naive)
GONE = -1
"""In place of an id: the end of the word, or a place whose token has become part of the one before it."""


def check(word: bytes, merges: list[tuple[int, int]]) -> None:
    check_merges("bpe_encode", merges)


@contract(check)
def naive(word: bytes, merges: list[tuple[int, int]]) -> list[int]:
    learned = {pair: i for i, pair in enumerate(merges)}
    ids = list(word)
    while known := [learned[pair] for pair in pairwise(ids) if pair in learned]:
        first = min(known)
        ids = merge(ids, merges[first], BYTES + first)
    return ids


@contract(check)
def vectorized(word: bytes, merges: list[tuple[int, int]]) -> list[int]:
    id_of = dict(zip(merges, range(BYTES, BYTES + len(merges)), strict=True))
    # A token stands at the place of its first byte, linked to those beside it.
    ids = [GONE, *word, GONE]
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
    # What can be merged, the first learned first, of the same from the left.
    queue = [(id_of[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in id_of]
    heapq.heapify(queue)
    while queue:
        new, i = heapq.heappop(queue)
        j = after[i]
        if (ids[i], ids[j]) != merges[new - BYTES]:
            continue  # a neighbour was merged since
        ids[i], ids[j] = new, GONE
        h, k = before[i], after[j]  # h, i, j, k stood in a row
        after[i], before[k] = k, i
        for at, pair in ((h, (ids[h], new)), (i, (new, ids[k]))):
            if pair in id_of:
                heapq.heappush(queue, (id_of[pair], at))
    return [token for token in ids if token != GONE]


SPELT = 2**22
"""Characters that all tokens together may have for the library. A merge can double the longest token, so that 40 merges
fill any memory; those learned from a text have a few characters each."""


@contract(check)
def fused(word: bytes, merges: list[tuple[int, int]]) -> list[int]:
    model = _model(merges)
    if model is None:
        return unchecked(vectorized)(word, merges)
    return [token.id for token in model.tokenize(word.decode("latin-1"))]  # a character for each byte


_last: tuple[list[tuple[int, int]], BPE | None] = [], None
"""Merges, and the library's model of them: a tokenizer encodes one word after another with the same."""


def _model(merges: list[tuple[int, int]]) -> BPE | None:
    global _last
    known, model = _last
    if known != merges:  # quickly seen to be equal, where the very same pairs are in both
        model = _made(merges)
        _last = list(merges), model
    return model


def _made(merges: list[tuple[int, int]]) -> BPE | None:
    """The library's model of these merges, or None where it cannot have one.

    It knows a token by its text, which is that of the two it is made of. So where two ids have the same text it takes
    them for one: of (97, 256) and (256, 97), with 256 made of (97, 97), both would make 258. Training makes no such
    merges. Where all texts differ, its ids are ours.
    """
    texts = [chr(byte) for byte in range(BYTES)]
    spelt = 0
    for left, right in merges:
        spelt += len(texts[left]) + len(texts[right])
        if spelt > SPELT:
            return None
        texts.append(texts[left] + texts[right])
    id_of = {text: i for i, text in enumerate(texts)}
    if len(id_of) < len(texts):
        return None
    # No cache: the library keeps it in each thread, where it outlives the model.
    return BPE(id_of, [(texts[left], texts[right]) for left, right in merges], cache_capacity=0)
