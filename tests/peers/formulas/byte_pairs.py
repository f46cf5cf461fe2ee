"""Byte pairs over texts in place of lists: each id is a character, and the functions of strings do the rest."""

import re
from collections import Counter

FIRST = 0xE000
"""The character of id 0: from here on none means anything to a regular expression."""


def bpe_merge(ids, pair, new_id):
    """Split at the pair, put together around the new id. Ids may be any numbers, so each gets the next character."""
    characters = {}
    for i in (*ids, *pair):
        characters.setdefault(i, chr(FIRST + len(characters)))
    spelled = dict(zip(characters.values(), characters, strict=True))
    parts = "".join(map(characters.get, ids)).split("".join(map(characters.get, pair)))
    merged = [spelled[c] for c in parts[0]]
    for part in parts[1:]:
        merged += [new_id, *(spelled[c] for c in part)]
    return merged


def bpe_train(words, vocab):
    texts = Counter()
    for word, count in words.items():
        texts["".join(chr(FIRST + byte) for byte in word)] += count
    merges = []
    for new in range(256, vocab):
        counts = Counter()
        for text, count in texts.items():
            for pair in re.findall("(?=(..))", text):  # looking ahead consumes nothing, so places overlap
                counts[pair] += count
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((ord(best[0]) - FIRST, ord(best[1]) - FIRST))
        texts = Counter({text.replace(best, chr(FIRST + new)): count for text, count in texts.items()})
    return merges


def bpe_encode(word, merges):
    """Every merge once, in the order of learning: what a later one makes is in no earlier pair."""
    text = "".join(chr(FIRST + byte) for byte in word)
    for new, (left, right) in enumerate(merges, start=256):
        text = text.replace(chr(FIRST + left) + chr(FIRST + right), chr(FIRST + new))
    return [ord(character) - FIRST for character in text]


def bpe_decode(ids, merges):
    """Backwards: the last id that was made is taken apart first."""
    if any(not 0 <= i < 256 + len(merges) for i in ids):
        raise IndexError(f"there are {256 + len(merges)} ids")
    text = "".join(chr(FIRST + i) for i in ids)
    for made in range(255 + len(merges), 255, -1):
        left, right = merges[made - 256]
        text = text.replace(chr(FIRST + made), chr(FIRST + left) + chr(FIRST + right))
    return bytes(ord(character) - FIRST for character in text)
