"""The bugs that people make in bpe_merge."""

from llama import implementation

LAYERS = implementation.load("vectorized")


def probes():
    def twice(bpe_merge):
        first = bpe_merge([1, 2, 1], (1, 2), 256)
        kept = list(first)
        return [kept, bpe_merge([0, 0, 0, 0], (0, 0), 256), first]

    def the_list_that_is_given(bpe_merge):
        ids = [3, 1, 2]
        replaced, same = bpe_merge(ids, (1, 2), 256), bpe_merge(ids, (7, 8), 256)
        return [replaced, ids, same is ids, replaced is ids]

    return [
        (([1, 1, 1], (1, 1), 256), {}),
        (([1, 1, 2], (1, 2), 256), {}),
        (([0, 1, 2], (1, 2), 256), {}),
        (([1, 0, 2, 1], (1, 2), 256), {}),
        (([2, 2, 2, 2], (2, 2), 2), {}),
        (([2, 1, 1, 2, 1, 2], (1, 2), 256), {}),
        (([300, 301, 2**40], (300, 301), 2**40), {}),
        (([1, 23, 11, 2], (1, 2), 256), {}),
        (([], (1, 2), 256), {}),
        twice,
        the_list_that_is_given,
    ]


def first_occurrence_only(ids, pair, new_id):
    """only the first occurrence of the pair is replaced.

    Tempting: list.index finds one, and there is no list.replace.
    """
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new_id, *ids[i + 2 :]]
    return list(ids)


def from_the_right(ids, pair, new_id):
    """runs are cut into pairs from the right, so that the one left over stands first.

    Tempting: whoever deletes from a list goes through it backwards, so that what is left keeps its place.
    """
    merged = list(ids)
    i = len(merged) - 2
    while i >= 0:
        if (merged[i], merged[i + 1]) == pair:
            merged[i : i + 2] = [new_id]
            i -= 1
        i -= 1
    return merged


def last_id_lost(ids, pair, new_id):
    """the loop ends one id early, and an id at the end that is in no pair is lost.

    Tempting: pairs are looked at, and there is one less of them than of ids.
    """
    merged, i = [], 0
    while i < len(ids) - 1:
        found = (ids[i], ids[i + 1]) == pair
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return merged


def pair_at_the_end_missed(ids, pair, new_id):
    """a pair at the very end stays as it is.

    Tempting: `i < len(ids) - 2` keeps well away from the end of the list.
    """
    merged, i = [], 0
    while i < len(ids):
        found = i < len(ids) - 2 and (ids[i], ids[i + 1]) == pair
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return merged


def right_id_kept(ids, pair, new_id):
    """the new id takes the place of the left one, and the right one stays behind it.

    Tempting: the position is moved on by one in every case, as in a for loop.
    """
    merged = []
    for i in range(len(ids)):
        merged.append(new_id if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair else ids[i])
    return merged


def pairs_overlap(ids, pair, new_id):
    """occurrences overlap: three alike become two new ids.

    Tempting: all places are looked for first, in one comprehension, and replaced afterwards.
    """
    places = {i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair}
    return [new_id if i in places else id_ for i, id_ in enumerate(ids) if i in places or i - 1 not in places]


def two_steps_in_any_case(ids, pair, new_id):
    """reading goes on two ids further where there is no pair, too, so that pairs at odd places are missed.

    Tempting: a text is cut into pairs, and each is looked at once.
    """
    merged = []
    for i in range(0, len(ids), 2):
        merged += [new_id] if tuple(ids[i : i + 2]) == pair else ids[i : i + 2]
    return merged


def either_order(ids, pair, new_id):
    """the pair is replaced in either order, (right, left) as well as (left, right).

    Tempting: "these two beside each other" sounds like a set.
    """
    merged, i = [], 0
    while i < len(ids):
        found = i + 1 < len(ids) and {ids[i], ids[i + 1]} == set(pair)
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return merged


def until_no_pair_is_left(ids, pair, new_id):
    """the merge is repeated until the pair is gone, so that a new id that is part of it is merged again.

    Tempting: "until no pair is left" is what encoding says.
    """
    before, merged = None, ids
    while merged != before:
        before, merged = merged, LAYERS.bpe_merge(merged, pair, new_id)
    return merged


def left_id_swallows_its_neighbour(ids, pair, new_id):
    """after a left id that is in no pair the next id is taken over unread, so that a pair right behind it is missed.

    Tempting: the left id has been found, and one that follows is copied with it.
    """
    merged, i = [], 0
    while i < len(ids):
        if ids[i] == pair[0] and i + 1 < len(ids):
            merged += [new_id] if ids[i + 1] == pair[1] else ids[i : i + 2]
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def changed_in_place(ids, pair, new_id):
    """the list of ids is changed itself, and returned.

    Tempting: slices can be assigned, and the old ids seem to be needed no longer.
    """
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def the_list_itself_where_nothing_fits(ids, pair, new_id):
    """where the pair does not occur, the very list that was given is returned, so that one who changes it changes both.

    Tempting: there is nothing to do, and a copy costs time.
    """
    merged = LAYERS.bpe_merge(ids, pair, new_id)
    return ids if merged == ids else merged


def ids_compared_as_text(ids, pair, new_id):
    """ids are compared as text, so that the pair (1, 2) is found in [1, 23] and in [11, 2], too.

    Tempting: str.replace does all of this in one line, and does it fast.
    """
    text = " ".join(map(str, ids)).replace(" ".join(map(str, pair)), str(new_id))
    return [int(part) for part in text.split()]


_KEPT = []


def result_in_one_list(ids, pair, new_id):
    """every result is the same list, which the next call writes over.

    Tempting: encoding merges again and again, and one list less is made each time.
    """
    _KEPT[:] = LAYERS.bpe_merge(ids, pair, new_id)
    return _KEPT


def ids_of_16_bits(ids, pair, new_id):
    """ids are kept in 16 bits, so that those from 65,536 on are others.

    Tempting: vocabularies of 50,000 fit, and the memory is half.
    """
    small = [i % 65536 for i in ids]
    return LAYERS.bpe_merge(small, tuple(i % 65536 for i in pair), new_id % 65536)
