"""The pictures: what the layers do (`pytest --plots`), and what a failure looks like."""

import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llama import implementation
from llama.layers import CHAPTER, LAYERS
from tests.judge.subject import Call, Subject
from tests.judge.telling.pictures import FAILURES, WIDEST, Drawings, comparison, draw_later, draw_matrix, picture_of
from tests.session.showing.gallery import FIXTURES, Gallery, figure

WRONG = "def silu(x):\n    return x.relu()\n"
DRAWING = "test_it_is_relu_with_a_round_corner_that_dips_below_zero"


@pytest.mark.parametrize("of", LAYERS)
def test_every_layer_has_a_worked_example_that_draws(of):
    module = importlib.import_module(f"tests.unit.{CHAPTER[of]}.test_{of}")
    tests = [inspect.signature(test).parameters for name, test in vars(module).items() if name.startswith("test_")]
    assert any(of in takes and takes.keys() & set(FIXTURES) for takes in tests)


@pytest.mark.suite({"mine.py": WRONG}, "--plots", "-k", "silu", "--impl", "{folder}/mine.py", "--maxfail=9")
def test_only_what_draws_runs_with_plots_and_what_fails_leaves_no_picture_of_the_layer(run):
    assert "/ 1 selected" in run.stdout
    assert DRAWING.removeprefix("test_").replace("_", " ") in run.stdout
    assert "1 failed" in run.stdout
    assert "index.html" not in run.stdout


def test_the_page_shows_the_layers_in_reading_order_each_with_its_sentences(tmp_path):
    gallery = Gallery()
    gallery.figures = {(layer, layer): figure(f"{layer} is <right>", "here", []) for layer in ("rope", "softmax")}
    page = gallery.write_index(tmp_path / "new").read_text(encoding="utf-8")
    assert page.index('id="softmax"') < page.index("Softmax is &lt;right&gt;.") < page.index('id="rope"')
    assert 'href="#silu"' not in page


def test_the_panels_of_a_figure_stand_in_the_page_in_the_colour_of_its_text():
    drawn = figure("it is so", "here", [lambda axes: draw_matrix(axes, np.eye(2))] * 2)
    assert drawn.count("<svg") == 2
    assert "currentColor" in drawn


def _item(name, layer="silu"):
    subject = Subject(layer, implementation.load("vectorized"))
    return SimpleNamespace(name=name, callspec=SimpleNamespace(params={layer: subject}))


@pytest.mark.parametrize(("passed", "left"), [(True, ["silu-test_two-mine.png"]), (False, None)])
def test_a_picture_of_a_failure_goes_when_its_test_passes(tmp_path, monkeypatch, passed, left):
    monkeypatch.chdir(tmp_path)
    FAILURES.mkdir(parents=True)
    one, two = (_item(f"test_{n}[mine]") for n in ("one", "two"))
    for item in (one, two):
        picture_of(item, "silu").write_bytes(b"")
    made = Drawings().pytest_runtest_makereport(one, SimpleNamespace(when="call"))
    next(made)
    with pytest.raises(StopIteration):
        made.send(SimpleNamespace(passed=passed))
    names = sorted(path.name for path in Path(FAILURES).iterdir())
    assert names == (left or ["silu-test_one-mine.png", "silu-test_two-mine.png"])


def _drawn(panels):
    """The axes of the panels, drawn."""
    from matplotlib.figure import Figure  # not where tests are merely collected

    shown = np.ravel(Figure(figsize=(14, 4)).subplots(1, len(panels)))
    for draw, axes in zip(panels, shown, strict=True):
        draw(axes)
    return shown


def test_a_failure_shows_the_input_as_it_was_before_the_call():
    given, written_over = torch.tensor([[1.0, 2.0, 4.0]]), torch.zeros(1, 3)
    call = Call(Subject("silu", implementation.load("vectorized")), (written_over,), {}, ((given,), {}))
    panels, _ = comparison(torch.zeros(1, 3), torch.ones(1, 3), ["seq", "d_model"], call)
    shown = _drawn(panels)
    assert [axes.get_title() for axes in shown] == ["input: x", "expected", "yours", "yours - expected"]
    assert [text.get_text() for text in shown[0].texts] == ["1", "2", "4"]


def test_the_input_is_the_first_tensor_of_floats_and_of_several_heads_the_one_that_is_wrong():
    q, k = torch.arange(12.0).reshape(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    call = Call(Subject("attention", implementation.load("vectorized")), (q, k, k), {}, ((q, k, k), {}))
    actual = k.clone()
    actual[0, 2, 1, 1] = 1.0
    panels, through = comparison(k, actual, ["batch", "n_heads", "q_len", "head_dim"], call)
    axes, *_ = _drawn(panels)
    assert axes.get_title() == "input: q[2]"
    assert [text.get_text() for text in axes.texts] == ["8", "9", "10", "11"]
    assert through == "batch 0, n_heads 2"


def test_up_to_64_cells_have_their_numbers():
    few, many = _drawn(
        [lambda axes: draw_matrix(axes, np.ones((8, 8))), lambda axes: draw_matrix(axes, np.ones((5, 13)))]
    )
    assert [len(axes.texts) for axes in (few, many)] == [64, 0]


def test_where_infinity_or_nan_meets_a_number_there_is_a_mark():
    expected = torch.tensor([[0.0, torch.inf, -torch.inf, 1.0]])
    actual = torch.tensor([[torch.nan, torch.inf, 5.0, 1.0]])
    panels, _ = comparison(expected, actual, ["seq", "vocab"])
    shown = _drawn(panels)
    said = [axes.get_xlabel().splitlines()[1:] for axes in shown]
    assert said == [["▲ ∞", "▼ -∞"], ["× NaN", "▲ ∞"], ["× infinity or NaN in one of the two"]]
    assert shown[2].lines[0].get_xdata().tolist() == [0, 2]  # not where both are the same infinity


def test_numbers_at_the_ends_of_float64_can_be_drawn():
    largest = torch.tensor([[1.7e308, -1.7e308]], dtype=torch.float64)
    expected, actual, _ = _drawn(comparison(largest, -largest, ["seq", "vocab"])[0])
    assert [text.get_text() for text in expected.texts] == ["1.7e+308", "-1.7e+308"]
    assert [text.get_text() for text in actual.texts] == ["-1.7e+308", "1.7e+308"]


def test_of_a_large_result_the_panels_show_what_lies_around_the_worst_element():
    expected = torch.zeros(3, 70_000)
    actual = expected.clone()
    actual[1, 60_000] = 1.0
    *_, difference = _drawn(comparison(expected, actual, ["seq", "vocab"])[0])
    values = difference.images[0].get_array()
    assert values.shape == (3, WIDEST)
    assert values[1, WIDEST // 2] == 1.0
    assert difference.get_xticklabels()[0].get_text() == str(60_000 - WIDEST // 2)


def test_a_failure_is_drawn_when_the_run_has_ended(tmp_path):
    path = tmp_path / "later.png"
    assert draw_later(path, "silu", torch.ones(2, 3), torch.zeros(2, 3), ["seq", "d_model"]) == path
    assert not path.exists()
    Drawings().pytest_unconfigure()
    assert path.read_bytes().startswith(b"\x89PNG")
