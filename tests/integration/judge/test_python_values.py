"""Layers of plain Python values: what is refused, and what is said of a result that is another."""

import numpy as np
import pytest

from llama.implementation import Implementation
from tests.judge import python_values
from tests.judge.apart.wire import Mirror, Trees
from tests.judge.guards.endings import Refused
from tests.judge.subject import Mismatch, Subject

PAIR = (97, 98)


def _merging(function):
    return Subject("bpe_merge", Implementation("mine", {"bpe_merge": function}))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (None, "out must be a value, got None: is there a return?"),
        (iter([1]), "out must be made of list, tuple, int and bytes alone, got list_iterator"),
        (np.array([1]), "out must be made of list, tuple, int and bytes alone, got numpy.ndarray"),
        (bytearray(b"a"), "out must be made of list, tuple, int and bytes alone, got bytearray"),
        ([1, np.int64(2)], "out[1] must be made of list, tuple, int and bytes alone, got numpy.int64"),
        ([1, (2, True)], "out[1][1] must be made of list, tuple, int and bytes alone, got bool"),
    ],
    ids=["nothing", "iterator", "array", "bytearray", "number-of-numpy", "bool"],
)
def test_other_kinds_are_refused_even_if_they_are_equal(result, sentence):
    with pytest.raises(Mismatch) as refused:
        _merging(lambda ids, pair, new_id: result)([1], PAIR, 256)
    assert refused.value.sentence == sentence


def test_an_argument_is_no_result():
    with pytest.raises(Mismatch, match="out is an argument itself, which its caller may change: return a new list"):
        _merging(lambda ids, pair, new_id: ids)([1], PAIR, 256)


@pytest.mark.parametrize("change", [lambda ids: ids.append(1), lambda ids: ids.reverse(), lambda ids: ids.clear()])
def test_a_list_that_is_changed_is_seen(change):
    with pytest.raises(Mismatch, match="an argument was changed: work on a copy"):
        _merging(lambda ids, pair, new_id: [change(ids)])([1, 2], PAIR, 256)


def test_words_that_are_counted_otherwise_or_stand_in_another_order_are_changed():
    words = {b"a": 1, b"b": 2}
    assert not python_values.changed(dict(words), words)
    assert python_values.changed({b"a": 1, b"b": 3}, words)
    assert python_values.changed(dict(reversed(words.items())), words)
    assert python_values.changed({b"b": 1, b"a": 1}, {b"a": 1, b"b": 1})


def test_a_result_that_a_later_call_writes_to_is_seen():
    kept = []

    def merge(ids, pair, new_id):
        kept[:] = ids
        return kept

    layer = _merging(merge)
    layer([1], PAIR, 256)
    with pytest.raises(Mismatch, match="an earlier result has changed"):
        layer([2], PAIR, 256)


@pytest.mark.parametrize(
    ("actual", "expected", "sentence"),
    [
        ([1, 2], [1, 2], ""),
        ([2, 1], [1, 2], "out is [2, 1] but should be [1, 2]"),
        ((1, 2), [1, 2], "out must be a list, got a tuple"),
        (1, b"a", "out must be bytes, got an int"),
        ([[1, 2]], [(1, 2)], "out is [[1, 2]] but should be [(1, 2)]"),
        ([True], [1], "out[0] must be an int, got a bool"),
        ([0] * 90, [0] * 89 + [1], "out[89] is 0 but should be 1"),
        ([0] * 90, [0] * 91, "out has length 90 but should have 91: it lacks [0]"),
        ([0] * 90, [0] * 40, "out has length 90 but should have 40: it goes on with [0, 0, 0] and so on"),
        (
            b"a" * 200,
            b"a" * 150 + b"b" * 50,
            f"out is {b'a' * 40!r} from 130 on but should be {b'a' * 20 + b'b' * 20!r}",
        ),
    ],
    ids=str,
)
def test_a_difference_is_told_where_it_begins(actual, expected, sentence):
    assert python_values.difference(actual, expected, "out") == sentence


@pytest.mark.parametrize(
    "value", [b"", b"\x00\xff", [2**70, -1], [(1, 2), (3, 4)], {b"\xff": 1, b"": 2}, [], ([], b"a")], ids=repr
)
def test_values_go_to_another_process_and_come_back_as_they_are(value):
    here, there = Trees(Mirror(0, False), dict), Trees(Mirror(1, True), dict)
    back = there.unpack(here.pack(value, {}, []))
    assert (type(back), back) == (type(value), value)


def test_a_layer_loaded_anew_is_judged_by_the_same_rule():
    decode = Subject("bpe_decode", Implementation("mine", {"bpe_decode": lambda ids, merges: bytes(ids)}))
    assert decode.fresh()([97], []) == b"a"
    with pytest.raises(Refused, match="bytes alone, got bytearray"):
        Subject("bpe_decode", Implementation("mine", {"bpe_decode": lambda ids, merges: bytearray(ids)})).fresh()(
            [], []
        )


def test_one_value_in_place_of_an_equal_one_of_another_type_is_a_change():
    assert python_values.changed([True], [1])
    assert python_values.changed({b"a": True}, {b"a": 1})
