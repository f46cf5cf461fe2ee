"""`python -m llama solution`: ours beside a learner's, after a question."""

import io
import sys

import pytest

from llama.__main__ import main
from llama.kata.solution import ours_in
from llama.layers import LAYERS

MINE = """
import torch

HALF = 2


def rope(x, positions, frequencies):
    return turned(x, positions, HALF)


def turned(x, positions, half):
    return x


def unused(x):
    return x
"""


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        assert main(["solution", *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", LAYERS)
def test_ours_is_shown_with_all_that_it_needs_of_its_file(show, name):
    shown = show(name, "--yes")
    assert shown.startswith("ours: ")
    assert f"def {ours_in(name)}(" in shown
    assert "def fused(" not in shown


def test_helpers_of_the_same_file_are_shown_too(show):
    shown = show("attention", "--yes")
    assert "def causal_mask(" in shown
    assert "class _WithGradient" not in shown


def test_theirs_stands_above_ours_in_a_narrow_terminal(show, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    theirs, ours = show("rope", "--yes", "--impl", "mine.py").split("\n\nours: ")
    assert theirs.startswith("yours: mine.py\n")
    assert "HALF = 2" in theirs
    assert "def turned(x, positions, half):" in theirs
    assert "unused" not in theirs
    assert "def vectorized(" in ours


def test_theirs_stands_beside_ours_in_a_wide_terminal(show, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "mine.py").write_text(MINE)
    title, _, first, *_ = show("rope", "--yes", "--impl", "mine.py").splitlines()
    assert title.startswith("yours: mine.py")
    assert " | ours: " in title
    assert first.startswith("def rope(x, positions, frequencies):")
    assert first.endswith("| def vectorized(")


def test_a_stub_is_not_shown_beside_ours(show, tmp_path, capsys):
    assert main(["kata", "mine", "rope"]) == 0
    capsys.readouterr()
    assert show("rope", "--yes", "--impl", "mine").startswith("ours: ")


def test_a_file_that_cannot_be_imported_is_shown_whole(show, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rope.py").write_text("import torch\n\ndef rope(:\n")
    assert "\nimport torch\n\ndef rope(:\n" in show("rope", "--yes", "--impl", "mine")


@pytest.mark.parametrize(
    ("typed", "shown"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_ours_is_shown_only_to_who_says_yes(show, monkeypatch, typed, shown):
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    out = show("rope")
    assert out.startswith("Show the solution of rope? [y/N] ")
    assert ("def vectorized(" in out) == shown
