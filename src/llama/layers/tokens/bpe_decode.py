"""The bytes that token ids stand for.

bpe_decode([257, 98], [(97, 98), (256, 97)]) == b"abab"

ids      token ids, a list of int of any length
merges   a list of pairs (left id, right id): merges[i] makes id 256 + i, from two smaller ids; no pair occurs twice

An id below 256 is that byte. Any other id stands for what its left id stands for, followed by what its right id stands
for, however deep pairs are nested. The bytes of all ids follow one another, with nothing between them. They need not be
UTF-8, and no byte is changed.

Only ids that occur, and those that they are made of, are spelled out: k merges can make an id of 2^k bytes.

Errors: IndexError for an id outside 0..255 + len(merges); ValueError where merges[i] names an id outside 0..255 + i, or
where a pair occurs twice.
Source: Gage, A New Algorithm for Data Compression, 1994.
"""

from llama.contract import check_merges, contract


def check(ids: list[int], merges: list[tuple[int, int]]) -> None:
    check_merges("bpe_decode", merges)
    size = 256 + len(merges)
    if ids and not (min(ids) >= 0 and max(ids) < size):
        outside = next(i for i in ids if not 0 <= i < size)
        raise IndexError(f"bpe_decode: ids must lie in 0..{size - 1}, got {outside}")


@contract(check)
def naive(ids: list[int], merges: list[tuple[int, int]]) -> bytes:
    found = []
    left = list(reversed(ids))
    while left:
        next_id = left.pop()
        if next_id < 256:
            found.append(next_id)
        else:
            first, second = merges[next_id - 256]
            left.append(second)
            left.append(first)
    return bytes(found)


@contract(check)
def vectorized(ids: list[int], merges: list[tuple[int, int]]) -> bytes:
    spelled = {byte: bytes([byte]) for byte in range(256)}
    # Each id that is needed is spelled once, smaller ids first. The others are left out: their bytes may be very many.
    for made in sorted(_needed(ids, merges)):
        first, second = merges[made - 256]
        spelled[made] = spelled[first] + spelled[second]
    return b"".join([spelled[i] for i in ids])


def _needed(ids: list[int], merges: list[tuple[int, int]]) -> set[int]:
    """The ids above 255 among these ids, among the ids of their pairs, and so on."""
    needed: set[int] = set()
    new = {i for i in ids if i > 255}
    while new:
        needed |= new
        new = {part for i in new for part in merges[i - 256] if part > 255} - needed
    return needed


@contract(check)
def fused(ids: list[int], merges: list[tuple[int, int]]) -> bytes:
    # Each id is spelled once for many calls, and they are joined in C. `tokenizers` decodes to text, not to bytes.
    return b"".join(map(_spellings(merges).__getitem__, ids))


def _spellings(merges: list[tuple[int, int]]) -> "_Spellings":
    """Those of the call before, where it had the same merges: a text is decoded token by token while it is written."""
    global _last
    known = _last
    if known.merges != merges:  # quickly seen to be equal, where the very same pairs are in both
        known = _last = _Spellings(list(merges))
    return known


class _Spellings(dict[int, bytes]):
    """The bytes of the ids that have been asked for, and of their parts."""

    def __init__(self, merges: list[tuple[int, int]]):
        super().__init__((byte, bytes([byte])) for byte in range(256))
        self.merges = merges

    def __missing__(self, asked: int) -> bytes:
        waiting = [asked]
        while waiting:
            pair = self.merges[waiting[-1] - 256]
            if unknown := [part for part in pair if part not in self]:
                waiting += unknown
            else:
                self[waiting.pop()] = self[pair[0]] + self[pair[1]]
        return self[asked]


_last = _Spellings([])
