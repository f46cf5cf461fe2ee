"""The bugs that people make in bpe_train."""

from collections import Counter
from itertools import pairwise

from llama import implementation

LAYERS = implementation.load("vectorized")
BYTES = 256


def _counts(written):
    """How often each pair stands in words that are written as ids."""
    counts = Counter()
    for ids, count in written:
        for pair in pairwise(ids):
            counts[pair] += count
    return counts


def _merge(ids, pair, new):
    if pair[0] not in ids:
        return ids
    merged, i = [], 0
    while i < len(ids):
        found = ids[i] == pair[0] and i + 1 < len(ids) and ids[i + 1] == pair[1]
        merged.append(new if found else ids[i])
        i += 1 + found
    return merged


def _best(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair), default=None)


def _train(words, vocab, counts=_counts, best=_best, merge=_merge, first=BYTES):
    """A right layer, of which one part may be replaced."""
    written = [(list(word), count) for word, count in words.items()]
    merges = []
    while BYTES + len(merges) < vocab:
        pair = best(counts(written))
        if pair is None:
            break
        written = [(merge(ids, pair, first + len(merges)), count) for ids, count in written]
        merges.append(pair)
    return merges


def _train_with_kept_counts(words, vocab, updated, left=lambda counts: counts):
    """The same with counts that are made once. `updated` gets them, and what a merge made of a word's ids."""
    written = [(list(word), count) for word, count in words.items()]
    counts = _counts(written)
    merges = []
    while BYTES + len(merges) < vocab:
        pair = _best(left(counts))
        if pair is None:
            break
        new = BYTES + len(merges)
        after = [(_merge(ids, pair, new), count) for ids, count in written]
        for (ids, count), (merged, _) in zip(written, after, strict=True):
            if merged != ids:
                updated(counts, pair, new, ids, merged, count)
        written = after
        merges.append(pair)
    return merges


def probes():
    def twice(bpe_train):
        first = bpe_train({b"ab": 1}, 300)
        kept = list(first)
        return [kept, bpe_train({b"yz": 1, b"z": 2, b"": 1}, 300), first]

    def short_words(bpe_train):
        words = {b"a": 1, b"ab": 2, b"": 1}
        return [bpe_train(words, 300), len(words)]

    calls = [
        {b"aaaa": 2, b"bcbcbc": 2, b"d": 1},
        {b"aaaaaaa": 3, b"aaa": 2, b"xyxy": 5, b"zaaaz": 1},
        {b"abc": 3, b"ab": 2, b"bc": 1, b"yz": 2},
        {b"dcba": 1, b"abcd": 2, b"cbab": 3},
        {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3},
        {b"\x01\x02": 3, b"\x0b\x02": 2, b"\x01\x17": 1, b"\x0b\x17": 1},
        {b"ab": 2**31 + 1, b"cd": 5, b"ef": 2**31 + 2},
        {},
    ]
    return [*((({**words}, vocab), {}) for words in calls for vocab in (256, 258, 300)), twice, short_words]


def overlaps_counted_once(words, vocab):
    """of overlapping occurrences one is counted: "aaa" has a, a once.

    Tempting: only so many can be merged; but then the counts cannot be kept up to date by looking at neighbours alone.
    Seen: karpathy/minbpe#72 (which asks for it).
    """

    def counts(written):
        found = Counter()
        for ids, count in written:
            before = None
            for i, pair in enumerate(pairwise(ids)):
                if before == (i - 1, pair):
                    before = None
                    continue
                found[pair] += count
                before = (i, pair)
        return found

    return _train(words, vocab, counts=counts)


def overlaps_left_in_the_count(words, vocab):
    """a merge takes from the count of its pair only what it has replaced, so that the overlaps in a run stay in it.

    Tempting: each replacement is one occurrence less; that two occurrences of "aaa" share an a is easily overlooked.
    """

    def updated(counts, pair, new, ids, merged, count):
        for was in pairwise(ids):
            counts[was] -= count
        for now in pairwise(merged):
            counts[now] += count
        overlaps = sum(was == pair for was in pairwise(ids)) - merged.count(new)
        counts[pair] += count * overlaps

    return _train_with_kept_counts(words, vocab, updated, left=_positive)


def _positive(counts):
    return Counter({pair: count for pair, count in counts.items() if count > 0})


def neighbours_keep_their_counts(words, vocab):
    """pairs that a merge has broken up keep their old counts.

    Tempting: the new pairs are added, and the merged one is deleted; that its neighbours have lost one needs a thought.
    """

    def updated(counts, pair, new, ids, merged, count):
        counts.pop(pair, None)
        for now in pairwise(merged):
            if new in now:
                counts[now] += count

    return _train_with_kept_counts(words, vocab, updated)


def left_neighbour_forgotten(words, vocab):
    """after a merge only the pair of the new token and its right neighbour is counted, not that with its left one.

    Tempting: reading goes from the left, and what is behind has been done.
    """

    def updated(counts, pair, new, ids, merged, count):
        counts.pop(pair, None)
        for was in pairwise(ids):
            if was in counts:
                counts[was] -= count
        for left, right in pairwise(merged):
            if right != new or left == new:
                counts[left, right] += count

    return _train_with_kept_counts(words, vocab, updated, left=_positive)


def gone_pairs_fill_the_vocabulary(words, vocab):
    """pairs that stand nowhere any more are merged, too, once nothing else is left.

    Tempting: a Counter keeps the pairs whose count has fallen to zero, and is not empty.
    Seen: huggingface/tokenizers#2320 (of a negative count).
    """

    def updated(counts, pair, new, ids, merged, count):
        for was in pairwise(ids):
            counts[was] -= count
        for now in pairwise(merged):
            counts[now] += count

    return _train_with_kept_counts(words, vocab, updated)


def fallen_counts_thrown_away(words, vocab):
    """a pair whose count has fallen since it was first counted is never merged.

    Tempting: an entry of a heap that is out of date is thrown away; but nobody puts in one with the new count.
    Seen: umran666/UniqToken#8.
    """
    queued = {}

    def best(counts):
        for pair, count in counts.items():
            queued.setdefault(pair, count)
        return _best({pair: count for pair, count in counts.items() if queued[pair] == count})

    return _train(words, vocab, best=best)


def counted_at_the_beginning_only(words, vocab):
    """the pairs are counted once, and the most frequent ones are taken in turn.

    Tempting: most of the pairs that are frequent at first still are after a few merges.
    """
    counts = _counts([(word, count) for word, count in words.items()])
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[: vocab - BYTES]


def two_merges_from_one_count(words, vocab):
    """the two most frequent pairs are merged before anything is counted again.

    Tempting: counting takes the time, and the second pair is mostly the next one.
    Seen: karpathy/minbpe#95.
    """
    next_ones = []

    def best(counts):
        if not next_ones:
            next_ones.extend(sorted(counts, key=lambda pair: (-counts[pair], pair))[:2])
        return next_ones.pop(0) if next_ones else None

    return _train(words, vocab, best=best)


def run_becomes_one_token(words, vocab):
    """a run of equal tokens becomes a single new one: "aaa" is 256, without an a behind it.

    Tempting: all places are marked at once, and what is marked as the right one of a pair is deleted.
    Seen: karpathy/minbpe#38.
    """

    def merge(ids, pair, new):
        pairs = list(pairwise(ids))
        right = {i + 1 for i, found in enumerate(pairs) if found == pair}
        return [new if i + 1 in right else id_ for i, id_ in enumerate(ids) if i not in right]

    return _train(words, vocab, merge=merge)


def merged_from_the_right(words, vocab):
    """runs are merged from the right: "aaa" is a, 256.

    Tempting: whoever deletes from a list goes through it backwards, so that what is left keeps its place.
    """

    def merge(ids, pair, new):
        return _merge(ids[::-1], pair[::-1], new)[::-1]

    return _train(words, vocab, merge=merge)


def first_occurrence_in_each_word(words, vocab):
    """only the first occurrence of the pair in each word is merged.

    Tempting: words are short, and list.index finds the place.
    """

    def merge(ids, pair, new):
        at = next((i for i, found in enumerate(pairwise(ids)) if found == pair), None)
        return ids if at is None else [*ids[:at], new, *ids[at + 2 :]]

    return _train(words, vocab, merge=merge)


def ids_replaced_as_text(words, vocab):
    """ids are replaced in a text of them, so that the pair 1, 2 is also found in 11, 2 and in 1, 23.

    Tempting: str.replace does a merge in one line; in Sennrich's code a regular expression looks for the blanks.
    """

    def merge(ids, pair, new):
        text = " ".join(map(str, ids)).replace(" ".join(map(str, pair)), str(new))
        return [int(part) for part in text.split()]

    return _train(words, vocab, merge=merge)


def pairs_across_words(words, vocab):
    """the words are written one behind the other, and pairs reach from one into the next.

    Tempting: a text is one list of bytes, and the first tokenizer that one writes has no words.
    Seen: rasbt/LLMs-from-scratch#975.
    """
    row = [(byte, count) for word, count in words.items() for byte in word]
    merges = []
    while BYTES + len(merges) < vocab:
        pairs = Counter()
        for (left, count), (right, _) in pairwise(row):
            pairs[left, right] += count
        pair = _best(pairs)
        if pair is None:
            break
        merged, at = [], 0
        while at < len(row):
            found = tuple(id_ for id_, _ in row[at : at + 2]) == pair
            merged.append((BYTES + len(merges), row[at][1]) if found else row[at])
            at += 1 + found
        row = merged
        merges.append(pair)
    return merges


def counts_of_words_ignored(words, vocab):
    """each word counts once, however often it occurs.

    Tempting: `for word in words` goes through the words, and forgets their counts.
    """
    return _train(dict.fromkeys(words, 1), vocab)


def pairs_counted_once_a_word(words, vocab):
    """a pair that stands in a word several times is counted once for it.

    Tempting: for each pair one keeps the set of the words that it stands in, and adds up their counts.
    """

    def counts(written):
        found = Counter()
        for ids, count in written:
            for pair in set(pairwise(ids)):
                found[pair] += count
        return found

    return _train(words, vocab, counts=counts)


def last_pair_of_a_word_missed(words, vocab):
    """the last pair of each word is not counted.

    Tempting: `range(len(ids) - 2)` keeps well away from the end of the list.
    """
    return _train(words, vocab, counts=lambda written: _counts([(ids[:-1], count) for ids, count in written]))


def last_word_missed(words, vocab):
    """the pairs of the last word are not counted.

    Tempting: words are counted in batches, and what is left over in the last one is forgotten.
    Seen: huggingface/tokenizers#179.
    """
    return _train(words, vocab, counts=lambda written: _counts(written[:-1]))


def pairs_without_order(words, vocab):
    """a, b and b, a are the same pair: they are counted together, and both are merged.

    Tempting: "how often two tokens stand side by side" sounds like a set of two.
    """

    def counts(written):
        found = Counter()
        for pair, count in _counts(written).items():
            found[tuple(sorted(pair))] += count
        return found

    def merge(ids, pair, new):
        merged, i = [], 0
        while i < len(ids):
            found = tuple(sorted(ids[i : i + 2])) == pair
            merged.append(new if found else ids[i])
            i += 1 + found
        return merged

    return _train(words, vocab, counts=counts, merge=merge)


def ties_by_first_sight(words, vocab):
    """of equally frequent pairs the one that was seen first is merged.

    Tempting: `max(counts, key=counts.get)` returns the first one, so that the result depends on the order of the words.
    Seen: karpathy/minbpe#90, rsennrich/subword-nmt#13.
    """
    return _train(words, vocab, best=lambda counts: max(counts, key=counts.get, default=None))


def ties_by_largest_ids(words, vocab):
    """of equally frequent pairs the largest is merged.

    Tempting: `max` of (count, pair) looks at the pair in the same direction as at the count.
    Seen: rsennrich/subword-nmt, learn_bpe.py (of strings).
    """
    return _train(words, vocab, best=lambda counts: max(counts, key=lambda pair: (counts[pair], pair), default=None))


def ties_by_bytes(words, vocab):
    """of equally frequent pairs the one whose bytes are first in the alphabet is merged.

    Tempting: tokens are kept as bytes, which are compared as easily as ids.
    """
    made = [bytes([byte]) for byte in range(BYTES)]

    def best(counts):
        pair = min(counts, key=lambda pair: (-counts[pair], *(made[id_] for id_ in pair)), default=None)
        if pair:
            made.append(made[pair[0]] + made[pair[1]])
        return pair

    return _train(words, vocab, best=best)


def ties_by_the_right_id_first(words, vocab):
    """of equally frequent pairs the one with the smallest right id is merged.

    Tempting: a pair that is packed into one number may be packed the other way round.
    """
    return _train(words, vocab, best=lambda counts: min(counts, key=lambda p: (-counts[p], p[::-1]), default=None))


def divided_by_the_counts_of_the_tokens(words, vocab):
    """the count of a pair is divided by the counts of its two tokens.

    Tempting: that is how WordPiece chooses, which is taught in the next chapter.
    """

    def counts(written):
        tokens = Counter()
        for ids, count in written:
            for id_ in ids:
                tokens[id_] += count
        return {(left, right): n / (tokens[left] * tokens[right]) for (left, right), n in _counts(written).items()}

    return _train(words, vocab, counts=counts)


def pairs_that_stand_once_are_left(words, vocab):
    """it ends where no pair stands more than once.

    Tempting: such a merge is of little use, and subword-nmt asks for 2.
    Seen: rsennrich/subword-nmt#33.
    """

    def best(counts):
        pair = _best(counts)
        return pair if pair and counts[pair] > 1 else None

    return _train(words, vocab, best=best)


def vocab_taken_for_the_number_of_merges(words, vocab):
    """vocab merges are made, and not vocab - 256.

    Tempting: the command line of subword-nmt asks for merges.
    """
    return _train(words, BYTES + vocab)


def one_merge_too_many(words, vocab):
    """there is one merge too many.

    Tempting: the last byte is 255, and so many are taken from vocab.
    """
    return _train(words, vocab + 1)


def place_kept_for_a_special_token(words, vocab):
    """there is one merge too few, and a place of the vocabulary is left for a special token.

    Tempting: a tokenizer needs an end of text, which counts as one of its ids.
    Seen: rasbt/LLMs-from-scratch#619.
    """
    return _train(words, vocab - 1)


def ids_from_257(words, vocab):
    """the first merge makes 257, and 256 stands for nothing.

    Tempting: 256 is given to an end of text or of words.
    """
    return _train(words, vocab, first=BYTES + 1)


def only_bytes_that_occur_have_ids(words, vocab):
    """bytes that occur in no word have no id: the others are numbered anew, and there are more merges.

    Tempting: the alphabet is collected from the words, as with characters.
    Seen: huggingface/course#775.
    """
    found = sorted({byte for word in words for byte in word})
    ids = {byte: i for i, byte in enumerate(found)} | {BYTES + i: len(found) + i for i in range(vocab)}
    return [(ids[left], ids[right]) for left, right in _train(words, vocab + BYTES - len(found))]


def merges_as_bytes(words, vocab):
    """merges hold the bytes of the two tokens, and not their ids.

    Tempting: they can be read, and other courses ask for them.
    """
    merges = _train(words, vocab)
    return [tuple(LAYERS.bpe_decode([id_], merges) for id_ in pair) for pair in merges]


def merges_with_their_ids(words, vocab):
    """each merge is followed by the id that it makes: (left id, right id, new id).

    Tempting: with all three a merge needs no place in a list.
    """
    return [(*pair, BYTES + i) for i, pair in enumerate(_train(words, vocab))]


def nothing_left_raises(words, vocab):
    """where no pair is left before the vocabulary is full it raises, as max and min do of nothing.

    Tempting: a real text is never too short.
    Seen: karpathy/minbpe#114.
    """
    return _train(words, vocab, best=lambda counts: min(counts, key=lambda pair: (-counts[pair], pair)))


def counts_of_32_bits(words, vocab):
    """counts have 32 bits, so that those from 2^31 on are negative.

    Tempting: no word occurs two billion times, until it is the blank of a large corpus.
    Seen: huggingface/tokenizers#2057.
    """

    def counts(written):
        return {pair: (count + 2**31) % 2**32 - 2**31 for pair, count in _counts(written).items()}

    return _train(words, vocab, counts=counts)


def words_changed(words, vocab):
    """words of less than two bytes are deleted from the mapping that was given.

    Tempting: they have no pair, and are in the way.
    """
    for word in [word for word in words if len(word) < 2]:
        del words[word]
    return _train(words, vocab)


_SEEN = Counter()


def words_of_earlier_calls(words, vocab):
    """the words of earlier calls are counted as well.

    Tempting: a Counter that stands in the module, or as a default argument, is fed by one file after another.
    """
    _SEEN.update(words)
    return _train(_SEEN, vocab)


_KEPT = []


def result_in_one_list(words, vocab):
    """every result is the same list, which the next call writes over.

    Tempting: a tokenizer has one list of merges, which is emptied and filled again.
    """
    _KEPT[:] = _train(words, vocab)
    return _KEPT
