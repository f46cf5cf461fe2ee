"""BPE train: learn from words which pairs of neighbours become one token.

    again and again:
        count(a, b)    how often b follows a within a word, each word as often as it occurs
        merges[i]    = the pair with the largest count; of equal counts, the smallest (a, b)
        a, b        -> 256 + i, everywhere

    words {word: count}, vocab -> merges [(left id, right id)]

The ids 0..255 are the bytes, and merges[i] makes the id 256 + i. Every position counts: a, a stands twice in "aaa". A
pair is merged from the left, without overlap: "aaa" becomes 256, a. No pair reaches from one word into the next. It
ends when there are `vocab` ids (256 bytes and vocab - 256 merges), or sooner where no word has two tokens left. Words
may be empty, and there may be none.

The order of `words` plays no part. No two ids stand for the same bytes: what surrounds a token has had no influence on
how its bytes were merged, so before they became one token they were the same two tokens wherever they stood.

Raises ValueError for a vocab below 256, or a count below 1.
Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2; over bytes as
in Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

import heapq
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise, repeat

import tokenizers

from llama.contract import contract, unchecked
from llama.layers.tokens import bpe_merge

BYTES = 256
merge = unchecked(bpe_merge.naive)
GONE = -1
"""In place of an id: the end of a word, or a place whose token has become part of the one before it."""


def check(words: dict[bytes, int], vocab: int) -> None:
    if vocab < BYTES:
        raise ValueError(f"bpe_train: vocab must be at least {BYTES}, got {vocab}")
    for word, count in words.items():
        if count < 1:
            raise ValueError(f"bpe_train: the count of each word must be at least 1, got {count} for {word!r:.99}")


@contract(check)
def naive(words: dict[bytes, int], vocab: int) -> list[tuple[int, int]]:
    counted = [(list(word), count) for word, count in words.items()]
    merges: list[tuple[int, int]] = []
    while BYTES + len(merges) < vocab:
        pairs: Counter[tuple[int, int]] = Counter()
        for ids, count in counted:
            for pair in pairwise(ids):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        counted = [(merge(ids, best, BYTES + len(merges)), count) for ids, count in counted]
        merges.append(best)
    return merges


@contract(check)
def vectorized(words: dict[bytes, int], vocab: int) -> list[tuple[int, int]]:
    # All words in one row, between ends. A token stands at the place of its first byte, linked to those beside it.
    ids, weights = [GONE], [0]
    for word, count in words.items():
        ids += [*word, GONE]
        weights += [count] * (len(word) + 1)
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))

    counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for i, pair in enumerate(pairwise(ids)):
        if GONE not in pair:
            counts[pair] += weights[i]
            places[pair].append(i)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)

    merges: list[tuple[int, int]] = []
    while queue and BYTES + len(merges) < vocab:
        queued, pair = queue[0]
        if -queued != counts[pair]:
            # Its count has fallen since, as it does when a neighbour is merged. It never rises: only pairs with the
            # new id come to be.
            heapq.heapreplace(queue, (-counts[pair], pair))
            continue
        if queued == 0:
            break
        heapq.heappop(queue)
        left, right = pair
        new = BYTES + len(merges)
        merges.append(pair)
        made = set()
        for i in sorted(places.pop(pair)):
            j = after[i]
            if ids[i] != left or ids[j] != right:
                continue  # a neighbour was merged since
            ids[i], ids[j] = new, GONE
            h, k = before[i], after[j]  # h, i, j, k stood in a row
            after[i], before[k] = k, i
            for was, at in (((ids[h], left), h), ((right, ids[k]), i)):
                if GONE in was:
                    continue
                counts[was] -= weights[i]
                now = ids[at], ids[after[at]]
                counts[now] += weights[i]
                places[now].append(at)
                made.add(now)
        for now in made:
            heapq.heappush(queue, (-counts[now], now))
    return merges


END = "\u0100"
"""Between the words that the library reads; no byte is this character."""
PIECE = 2**8
"""Characters that the library is given at a time: longer texts take it longer."""
READ = 2**21
"""Characters that the library may read. It reads each word as often as it occurs, which takes longer the more often."""
LONG = 2**14
"""Bytes that a word may have for the library, which moves the rest of a word for each pair that it merges in it."""


@contract(check)
def fused(words: dict[bytes, int], vocab: int) -> list[tuple[int, int]]:
    words = {word: count for word, count in words.items() if len(word) > 1}  # the others have no pair
    # The library takes no counts. It reads each word as often as it occurs, in proportion to the others.
    unit = math.gcd(*words.values())
    times = {word.decode("latin-1"): count // unit for word, count in words.items()}  # a character for each byte
    if sum(len(word) * n for word, n in times.items()) > READ or max(map(len, words), default=0) > LONG:
        return unchecked(vectorized)(words, vocab)
    trainer = tokenizers.trainers.BpeTrainer(
        # It reserves memory for them all: no more than there can be, since each merge takes a token from a word.
        vocab_size=min(vocab, BYTES + sum(len(word) - 1 for word in words)),
        initial_alphabet=[chr(byte) for byte in range(BYTES)],
        show_progress=False,
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.CharDelimiterSplit(END)
    # It starts threads that stay for the life of the process; a forked child does without.
    tokenizer.train_from_iterator(_repeated(times), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [(model["vocab"][left], model["vocab"][right]) for left, right in model["merges"]]


def _repeated(times: dict[str, int]) -> Iterator[str]:
    for word, n in times.items():
        at_a_time = max(PIECE // len(word), 1)
        pieces, rest = divmod(n, at_a_time)
        yield from repeat((word + END) * at_a_time, pieces)
        yield (word + END) * rest
