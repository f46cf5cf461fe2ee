"""The bugs that people make in bpe_decode."""

import codecs
import tracemalloc

import numpy as np

from llama import implementation

LAYERS = implementation.load("vectorized")
THE = [(116, 104), (256, 101)]


def _spelled(id_, merges):
    """What one id stands for."""
    return LAYERS.bpe_decode([id_], merges)


def _check(ids, merges):
    """Raise where the layer itself would."""
    if not all(0 <= i < 256 + len(merges) for i in ids):
        raise IndexError


def probes():
    """Text of every kind, ids at both ends, deep and wide pairs, and calls that follow one another."""

    def text(ids, merges=()):
        return ((list(ids), list(merges)), {})

    def deep(bpe_decode):
        merges = [(97, 98), *[(i, 97) for i in range(256, 5_255)]]
        return bpe_decode([5_255], merges)

    def memory(bpe_decode):
        """Whether it takes more than a few letters need: the ids that are not asked for stand for 2^23 bytes."""
        merges = [(97, 97), *[(i, i) for i in range(256, 277)]]
        tracemalloc.start()
        try:
            return [bpe_decode([256, 257], merges), tracemalloc.get_traced_memory()[1] > 2**20]
        finally:
            tracemalloc.stop()

    def other_merges(bpe_decode):
        return [bpe_decode([256], [(97, 98)]), bpe_decode([256], [(99, 100)])]

    def grown(bpe_decode):
        merges = [(97, 98)]
        first = bpe_decode([256], merges)
        merges.append((256, 99))
        return [first, bpe_decode([257, 256], merges)]

    def changed(bpe_decode):
        merges = [(97, 98)]
        first = bpe_decode([256], merges)
        merges[0] = (99, 100)
        return [first, bpe_decode([256], merges)]

    return [
        text([]),
        text([], THE),
        text(range(256)),
        text([257, 256, 116], THE),
        text([257, 257], THE),
        text([256], [(98, 97)]),
        text([258, 257, 256], [(97, 98), (99, 256), (257, 256)]),
        text("é€".encode()),
        text([0xE2, 0x82]),
        text([0xE2, 0x82, 97]),
        text([256, 0xAC], [(0xE2, 0x82)]),
        text([0xFF, 97, 0xA9]),
        text(b" a"),
        text(b"a , b ."),
        text(b"a\r\nb"),
        text([97, 0, 98]),
        text([256, 99], [(97, 0)]),
        text([97, 1, 98]),
        text([256, 99], [(1, 97)]),
        *[text([97, outside], THE) for outside in (258, 259, 300, -1, -2, -258, -259)],
        text([256], []),
        deep,
        memory,
        other_merges,
        grown,
        changed,
    ]


def right_before_left(ids, merges):
    """the right id of each pair comes before the left one.

    Tempting: both are put on a stack in the order in which they are read, and the one put there last is taken first.
    """
    return LAYERS.bpe_decode(ids, [(right, left) for left, right in merges])


def from_the_last_id_on(ids, merges):
    """the ids are read from the last to the first.

    Tempting: the list of ids is a stack already, and pop takes its end.
    """
    return LAYERS.bpe_decode(ids[::-1], merges)


def one_level_only(ids, merges):
    """a pair is taken for two bytes, so that a pair of other pairs is a ValueError.

    Tempting: the first merges of any training are pairs of bytes.
    """
    _check(ids, merges)
    return bytes(part for i in ids for part in (merges[i - 256] if i > 255 else (i,)))


def rest_cut_to_8_bits(ids, merges):
    """an id within a pair is cut to its lowest 8 bits, so that 256 becomes the byte 0.

    Tempting: an array of uint8 is an array of bytes, and makes a byte of anything.
    """
    _check(ids, merges)
    parts = [part for i in ids for part in (merges[i - 256] if i > 255 else (i,))]
    return np.array(parts, dtype=np.int64).astype(np.uint8).tobytes()


def one_call_in_another(ids, merges):
    """each level of pairs is a call within a call, so that ids nested a thousand deep are a RecursionError.

    Tempting: the definition is recursive, and what training makes is nested a few levels deep.
    """

    def spelled(i):
        return bytes([i]) if i < 256 else spelled(merges[i - 256][0]) + spelled(merges[i - 256][1])

    _check(ids, merges)
    return b"".join(map(spelled, ids))


def table_of_all_ids(ids, merges):
    """all ids are spelled out, those that do not occur too, which may take more memory than there is.

    Tempting: the table is made in one loop, and of a trained tokenizer it is small.
    """
    lengths = [1] * 256
    for left, right in merges:
        lengths.append(lengths[left] + lengths[right])
    if sum(lengths) > 2**26:
        raise MemoryError  # which would come by itself, but not at once
    table = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    _check(ids, merges)
    return b"".join(table[i] for i in ids)


def visited_ids_left_out(ids, merges):
    """an id is spelled out where it occurs first, and left out where it occurs again.

    Tempting: pairs of pairs are a graph, and a walk through a graph notes where it has been.
    """
    return LAYERS.bpe_decode(list(dict.fromkeys(ids)), merges)


def special_token_before_the_merges(ids, merges):
    """256 is an end of text without bytes, and the first merge makes 257.

    Tempting: in many vocabularies the special tokens stand between the bytes and the merges.
    """
    return LAYERS.bpe_decode([i - (i > 256) for i in ids if i != 256], merges)


def text(ids, merges):
    """the result is text, a str, and not bytes.

    Tempting: a text was encoded, and most tokenizers give a text back.
    """
    return LAYERS.bpe_decode(ids, merges).decode(errors="replace")


def list_of_numbers(ids, merges):
    """the result is a list of numbers up to 255, and not bytes.

    Tempting: ids came in as a list of numbers, and those up to 255 are what bytes are called here.
    """
    return list(LAYERS.bpe_decode(ids, merges))


def bytearray_left(ids, merges):
    """the result is a bytearray, which has no hash and may be changed, and not bytes.

    Tempting: a bytearray can be extended, and it equals bytes wherever the two are compared.
    """
    return bytearray(LAYERS.bpe_decode(ids, merges))


def read_as_utf_8(ids, merges):
    """the bytes are read as text on the way, and what is not UTF-8 becomes the bytes of a replacement character.

    Tempting: it looks the same for every whole text, and errors="replace" never raises.
    Seen: karpathy/nanochat#693.
    """
    return LAYERS.bpe_decode(ids, merges).decode(errors="replace").encode()


def each_id_read_as_utf_8(ids, merges):
    """each id is read as text by itself, so that a character spread over several ids becomes replacement characters.

    Tempting: what a model writes is shown one token at a time.
    Seen: antonellof/ferrox#124.
    """
    return b"".join(_spelled(i, merges).decode(errors="replace").encode() for i in ids)


def what_is_not_utf_8_left_out(ids, merges):
    """bytes that are not UTF-8 are left out.

    Tempting: nobody wants to see replacement characters.
    Seen: replicate/cog-llama-template#75.
    """
    return LAYERS.bpe_decode(ids, merges).decode(errors="ignore").encode()


def unfinished_character_held_back(ids, merges):
    """a character that the last ids begin and do not end is left out.

    Tempting: its other bytes come with the next token, but a list of ids may end here.
    Seen: timtoole02/Camelid#288.
    """
    reader = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    return reader.decode(LAYERS.bpe_decode(ids, merges)).encode(errors="surrogateescape")


def characters_for_bytes(ids, merges):
    """each byte is taken for the character of that number, so that one above 127 becomes two bytes.

    Tempting: chr(id) and encode() look like the way from a number to bytes, and are for ASCII.
    Seen: paiml/aprender#2121.
    """
    return LAYERS.bpe_decode(ids, merges).decode("latin-1").encode()


def negative_ids_from_the_end(ids, merges):
    """a negative id is counted from the last one, where it should be an IndexError.

    Tempting: an id that is too large raises by itself, and Python's lists take negative places.
    Seen: sgl-project/sglang#15963.
    """
    size = 256 + len(merges)
    return LAYERS.bpe_decode([i + size if i < 0 else i for i in ids], merges)


def ids_beyond_the_end_are_the_last(ids, merges):
    """an id beyond the last one is taken for the last one, where it should be an IndexError.

    Tempting: a model may have more rows than there are tokens, and a limit keeps the program running.
    """
    return LAYERS.bpe_decode([min(i, 255 + len(merges)) for i in ids], merges)


def unknown_ids_left_out(ids, merges):
    """an id that there is not is left out, where it should be an IndexError.

    Tempting: a model without training draws any number, and an empty text harms nobody.
    Seen: mosaicml/llm-foundry#841.
    """
    return LAYERS.bpe_decode([i for i in ids if 0 <= i < 256 + len(merges)], merges)


def zero_is_padding(ids, merges):
    """the id 0 is left out.

    Tempting: shorter texts of a batch are filled up with zeros; here 0 is a byte like any other.
    """
    return LAYERS.bpe_decode(list(filter(None, ids)), merges)


def one_ends_the_text(ids, merges):
    """decoding ends before the first id 1.

    Tempting: in Llama's first vocabularies 1 begins a text, and so ends the one before; here it is a byte.
    Seen: karpathy/llama2.c, run.c.
    """
    LAYERS.bpe_decode(ids, merges)
    return LAYERS.bpe_decode(ids[: ids.index(1)] if 1 in ids else ids, merges)


def nul_ends_an_id(ids, merges):
    """what an id stands for ends at its first NUL byte.

    Tempting: in C a piece of text is a string, and that is where printf stops.
    Seen: karpathy/llama2.c, run.c.
    """
    return b"".join(_spelled(i, merges).partition(b"\0")[0] for i in ids)


def leading_space_stripped(ids, merges):
    """a space at the beginning is left out.

    Tempting: SentencePiece puts one before every text, and takes it away again.
    Seen: ml-explore/mlx-lm#1754.
    """
    return LAYERS.bpe_decode(ids, merges).removeprefix(b" ")


def spaces_before_punctuation_left_out(ids, merges):
    """the space before a full stop, a comma, a question or an exclamation mark is left out.

    Tempting: tokens that are whole words need it.
    Seen: huggingface/transformers#44915.
    """
    tidied = LAYERS.bpe_decode(ids, merges)
    for mark in (b".", b",", b"?", b"!"):
        tidied = tidied.replace(b" " + mark, mark)
    return tidied


def spaces_between_ids(ids, merges):
    """there is a space between the bytes of two ids.

    Tempting: where tokens are words, join needs one.
    Seen: neulab/xnmt#511.
    """
    return b" ".join(_spelled(i, merges) for i in ids)


def ends_of_lines_changed(ids, merges):
    """a carriage return before a newline is left out.

    Tempting: it happens by itself where bytes go through a file that is open as text.
    """
    return LAYERS.bpe_decode(ids, merges).replace(b"\r\n", b"\n")


_KEPT = {}


def kept_by_the_number_of_merges(ids, merges):
    """what an id stands for is kept from an earlier call with as many merges, though they were others.

    Tempting: a tokenizer has one list of merges, and its length is at hand as a key.
    """
    _check(ids, merges)
    for i in ids:
        if (len(merges), i) not in _KEPT:
            _KEPT[len(merges), i] = _spelled(i, merges)
    return b"".join(_KEPT[len(merges), i] for i in ids)


_LAST = []


def kept_with_the_list(ids, merges):
    """the merges are those which the same list held when it was first given, though it may have changed since.

    Tempting: to ask whether it is the same object takes no time.
    """
    if not _LAST or _LAST[0] is not merges:
        _LAST[:] = [merges, list(merges)]
    return LAYERS.bpe_decode(ids, _LAST[1])
