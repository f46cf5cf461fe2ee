"""One merge: every occurrence of a pair of ids becomes one new id.

bpe_merge([97, 97, 97], (97, 97), 256) == [256, 97]

ids      token ids, a list of int of any length
pair     (left id, right id), which may be the same
new_id   the id that takes the place of both

From the left and without overlap: after a replaced pair, reading goes on behind it. Neither the new id nor a neighbour
forms a pair again in the same merge, even if `new_id` is in the pair. The result is a new list, also where nothing was
replaced.

Source: Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword Units, 2016, algorithm 1.
"""

import sys
from array import array
from collections.abc import Sequence

from llama.contract import contract

UTF_32 = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"


@contract()
def naive(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    merged = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@contract()
def vectorized(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    left, right = pair
    merged: list[int] = []
    start = 0
    # list.index runs in C: only where a left id stands does Python look for the right one.
    while True:
        try:
            at = ids.index(left, start)
        except ValueError:
            merged += ids[start:]
            return merged
        merged += ids[start:at]
        both = at + 1 < len(ids) and ids[at + 1] == right
        merged.append(new_id if both else left)
        start = at + 1 + both


@contract()
def fused(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    # As text, each id a character, so that str.replace does it in C: from the left, without overlap. The Rust of
    # `tokenizers` merges a whole word, and knows no single merge.
    try:
        text, both, new = map(_as_text, (ids, pair, [new_id]))
    except (OverflowError, UnicodeDecodeError):  # an id that is no character: negative, or above 0x10FFFF
        return vectorized(ids, pair, new_id)
    merged = array("I")
    merged.frombytes(text.replace(both, new).encode(UTF_32, "surrogatepass"))
    return merged.tolist()


def _as_text(ids: Sequence[int]) -> str:
    return array("I", ids).tobytes().decode(UTF_32, "surrogatepass")
