"""Words and merges for the layers of tokens, made from a case: few letters, so that runs and ties are common."""

from tests.cases.case import Case

LETTERS = b"abc"


def word(case: Case, length: int) -> bytes:
    """Of one, two or three letters."""
    letters = LETTERS[: 1 + case.seed % len(LETTERS)]
    return bytes(letters[i] for i in numbers(case, length, len(letters)))


def words(case: Case, count: int, longest: int) -> dict[bytes, int]:
    """So many words, some of which may be the same or empty, with how often they occur."""
    lengths, counts = numbers(case, count, longest + 1), numbers(case, count, 4)
    return {word(case, length): 1 + times for length, times in zip(lengths, counts, strict=True)}


def merges(case: Case, count: int) -> list[tuple[int, int]]:
    """At most so many, of letters and of earlier ids: no pair occurs twice, and some make the same bytes."""
    found: list[tuple[int, int]] = []
    for left, right in zip(numbers(case, count, 2**30), numbers(case, count, 2**30), strict=True):
        known = [*LETTERS[:2], *range(256, 256 + len(found))]
        # One in three joins the last id, which nests them deeply.
        pair = known[left % len(known) if left % 3 else -1], known[right % len(known)]
        if pair not in found:
            found.append(pair)
    return found


def numbers(case: Case, count: int, high: int) -> list[int]:
    """So many integers in 0..high-1."""
    return case.integers([count + 1], high).tolist()[:-1]  # whose last one is always the highest
