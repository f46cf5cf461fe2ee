"""What a failing test says of a call: as it can be pasted, in the words of its test, with what was printed in it."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llama import implementation
from llama.layers import LAYERS
from tests.cases.calls import arguments
from tests.cases.case import Case
from tests.cases.sizes import small
from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_equals_naive, assert_identical
from tests.judge.items import claim
from tests.judge.subject import Call, Mismatch, Subject
from tests.judge.telling import messages
from tests.session.choosing.keyword import asked_for, is_about

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


def _in_single(x):
    return OURS.silu(x.float()).to(x.dtype)


@pytest.fixture
def in_float32():
    """A failing call of a layer that computes float64 in float32, and its error."""
    subject = Subject("silu", implementation.Implementation("mine", {"silu": _in_single}))
    x = torch.linspace(-4, 4, 31, dtype=torch.float64)
    with pytest.raises(Mismatch) as raised:
        assert_equals_naive(subject, x, look_at="the tail")
    return subject, Subject.last, raised.value


def test_advice_of_a_test_stands_beside_no_line_on_dtypes(in_float32):
    subject, call, error = in_float32
    said = list(messages._why(error, subject, call, messages.Cause(), "the tail"))
    assert said == ["The same call is wrong in float64 alone: something in it is computed in float32."]


@pytest.mark.parametrize(("room", "said"), [("unit/model", ["Look at: the tail"]), ("property/every_layer", [])])
def test_advice_of_a_general_rule_is_for_a_layer_that_is_right_otherwise(monkeypatch, room, said):
    def wrong(x):
        return OURS.silu(x) + x.sin() / 3

    subject = Subject("silu", implementation.Implementation("mine", {"silu": wrong}))
    with pytest.raises(Mismatch) as raised:
        assert_equals_naive(subject, torch.linspace(-4, 4, 31), look_at="the tail")
    item = SimpleNamespace(
        path=Path("tests") / room / "test_it.py",
        location=("test_it.py", 1, ""),
        name="test_it",
        originalname="test_it",
        callspec=SimpleNamespace(params={"layer": subject}),
    )
    monkeypatch.setattr(messages, "draw_later", lambda path, *_: path)
    told = messages._explain(item, raised.value, raised.value.sentence, messages.Cause(), None)
    assert [line for line in told if line.startswith("Look at")] == said


def test_a_call_within_autocast_says_so():
    subject = Subject("silu", OURS)
    with torch.autocast("cpu", torch.bfloat16):
        subject(torch.zeros(1))
    first, *_ = messages._what_happened(subject, Subject.last, None, "out[0] is 1 but should be 0", "")
    assert first == "Within torch.autocast, where products of matrices are computed in bfloat16:"


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


@pytest.mark.parametrize(
    ("compare", "sentence"),
    [
        (lambda out: assert_close(out.sum(), tensor(2.0)), "out.sum() is 3 but should be 2"),
        (lambda out: assert_close(out * 2, tensor([2.0, 3.0])), "(out * 2)[1] is 4 but should be 3"),
        (lambda out: assert_identical(-out[1:].double().square().sum().sqrt().neg(), tensor(0.0)), "value must be "),
    ],
)
def test_what_a_test_makes_of_a_result_is_called_by_its_source_where_that_is_short(compare, sentence):
    with pytest.raises(Mismatch) as mismatch:
        compare(tensor([1.0, 2.0]))
    assert mismatch.value.sentence.startswith(sentence)


GRADIENTS_BY_NAME = [
    (lambda of: of, ""),
    (lambda of: dict(reversed(of.items())), ""),
    (lambda of: list(of.values()), "gradients must be a dict from the names of the weights, got a list"),
    (lambda of: {k: g for k, g in of.items() if "q_proj" not in k}, "gradients lacks self_attn.q_proj.weight"),
    (lambda of: of | {"bias": of["mlp.up_proj.weight"]}, "gradients has bias, which weights has not"),
    (lambda of: of | {"mlp.up_proj.weight": 0 * of["mlp.up_proj.weight"]}, 'gradients["mlp.up_proj.weight"]['),
]


@pytest.mark.parametrize(("change", "sentence"), GRADIENTS_BY_NAME)
def test_gradients_by_name_are_compared_by_name(change, sentence):
    def layer(*args, **kwargs):
        grad_x, gradients = OURS.decoder_layer_backward(*args, **kwargs)
        return grad_x, change(gradients)

    of = "decoder_layer_backward"
    subject = Subject(of, implementation.Implementation("other", {of: layer}))
    args, kwargs = arguments(of, Case(small(of), torch.float32, 0))
    if not sentence:
        assert_equals_naive(subject, *args, **kwargs)
        return
    with pytest.raises(Mismatch) as found:
        assert_equals_naive(subject, *args, **kwargs)
    assert found.value.sentence.startswith(sentence)


def test_the_parts_of_a_result_are_called_by_their_names_also_where_a_test_takes_one_of_them():
    subject = Subject("linear_backward", OURS)
    grad_x, grad_weight = subject(torch.ones(2, 3), torch.ones(2, 4), torch.ones(3, 4))
    with pytest.raises(Mismatch) as found:
        assert_close(grad_weight, grad_weight + 1)
    assert found.value.sentence.startswith("grad_weight[0, 0] is 2 but should be 3")
    assert subject.last.name_of(grad_x) == "grad_x"
