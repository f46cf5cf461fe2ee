"""What a failing test says of a call: as it can be pasted, in the words of its test, with what was printed in it."""

import math
from types import SimpleNamespace

import pytest
import torch

from llama import implementation
from llama.layers import LAYERS
from tests.judge.items import claim
from tests.judge.subject import Call, Subject
from tests.judge.telling import messages
from tests.session.keyword import asked_for, is_about

OURS = implementation.load("vectorized")


def _call(layer, *args, **kwargs):
    return Call(Subject(layer, OURS), args, kwargs, (args, kwargs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_call_that_is_pasted_has_the_same_numbers_to_the_last_bit(dtype):
    x = torch.tensor([[0.1, -1 / 3, 1e-7], [1e4, math.inf, -math.inf]], dtype=dtype)
    source = _call("silu", x).source()
    (again,) = eval(source, {"torch": torch, "silu": lambda *args: args})
    assert again.dtype == x.dtype
    assert torch.equal(again, x)


def test_numbers_booleans_lists_and_nothing_stand_in_a_call_too():
    args = [torch.ones(2), torch.zeros(1)], torch.tensor([True, False]), None, (0.9, 0.95), torch.tensor(3)
    source = _call("attention", *args, eps=1e-5).source()
    again, named = eval(source, {"torch": torch, "attention": lambda *args, **kwargs: (args, kwargs)})
    assert str(again) == str(args)
    assert named == {"eps": 1e-5}


@pytest.mark.parametrize("many", [(torch.zeros(13),), (torch.zeros(1), {"w": torch.zeros(1)})])
def test_a_call_of_many_numbers_or_of_a_mapping_is_not_written_out(many):
    assert _call("silu", *many).source() == ""


def test_what_the_layer_printed_in_the_call_that_failed_is_shown_once(monkeypatch):
    call = _call("silu", torch.zeros(1))
    call.printed_before = len("é\n".encode()) * 2
    monkeypatch.setattr(Subject, "last", call)
    sections = [("Captured stdout call", "é\né\né\n"), ("Captured log call", "é\n")]
    assert messages._last_words(sections) == [("Captured stdout call", "é\n"), ("Captured log call", "é\n")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_three_and_four_have_the_root_mean_square_of_12_5", "three and four have the root mean square of 12.5"),
        ("test_the_norm_goes_through_w_v_and_w_o", "the norm goes through w_v and w_o"),
        ("test_top_k_comes_before_top_p", "top_k comes before top_p"),
        ("test_position_1001_in_bfloat16_is_not_rounded", "position 1001 in bfloat16 is not rounded"),
    ],
)
def test_names_and_numbers_keep_their_punctuation(name, words):
    assert claim(SimpleNamespace(originalname=name)) == words


@pytest.mark.parametrize(
    ("keyword", "layers"),
    [("rope", ("rope",)), ("rope or silu", ("rope", "silu")), ("prope", ()), ("not rope", ()), ("", ())],
)
def test_a_keyword_names_layers_where_it_holds_nothing_else(keyword, layers):
    assert asked_for(SimpleNamespace(option=SimpleNamespace(keyword=keyword))) == layers


def test_a_test_is_about_a_layer_whose_name_is_a_word_of_its_own():
    assert is_about(SimpleNamespace(name="test_a_copy_of_rope_has_an_operator"), ("rope",))
    assert not is_about(SimpleNamespace(name="test_a_property_of_all"), ("rope",))


@pytest.mark.parametrize("of", LAYERS)
def test_every_layer_can_be_asked_for(of):
    assert asked_for(SimpleNamespace(option=SimpleNamespace(keyword=of))) == (of,)
