"""`python -m llama hint`: which hint is given when, and what the hints files hold."""

import ast
import inspect
import os
import tomllib

import pytest

from llama import implementation
from llama.__main__ import main
from llama.kata import board, hint_file
from llama.kata.board import Row
from llama.kata.solution import ours_in
from llama.layers import CHAPTER, CHAPTERS, LAYERS, layer_module
from tests import zoo

KEYS = {"why", "read", "hints", "learnt", "after"}
DIAGNOSED = "Your output is exactly what you get when the turn is clockwise."


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """What a command prints, as one line of words."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        assert main(list(arguments)) == 0
        return " ".join(capsys.readouterr().out.split())

    return run


def _tested(folder, **rows):
    """A folder of stubs whose last run left these rows on its board."""
    assert main(["kata", folder, *rows]) == 0
    kept = board.load(implementation.load(folder))
    for layer, row in rows.items():
        kept.record(layer, row)
    kept.save()


def test_without_a_layer_the_hint_is_for_the_first_that_fails(ask, capsys):
    assert main(["hint"]) != 0
    assert "no layer failed when it was last tested" in capsys.readouterr().err
    _tested("mine", silu=Row("failing"), rope=Row("failing"), softmax=Row("done"))
    assert ask("hint").endswith(hint_file.read("silu").hints[0])


def test_a_hint_is_given_at_a_time_until_there_is_no_next_one(ask):
    hints = hint_file.read("rope").hints
    for number, hint in enumerate(hints, start=1):
        assert ask("hint", "rope") == f"Hint {number} of {len(hints)}: {hint}"
    last = ask("hint", "rope")
    assert last.startswith("There are no more hints for rope. `python -m llama solution rope` shows ours")
    assert ask("hint", "rope") == last


def test_each_layer_has_a_first_hint_of_its_own(ask):
    assert "Hint 1 of 3" in ask("hint", "rope")
    assert "Hint 1 of 3" in ask("hint", "silu")
    assert "Hint 2 of 3" in ask("hint", "rope")


def test_all_hints_come_at_once_and_again_starts_over(ask):
    told = ask("hint", "silu", "--all")
    assert all(hint in told for hint in hint_file.read("silu").hints)
    assert "There are no more hints" in ask("hint", "silu")
    assert "Hint 1 of 3" in ask("hint", "silu", "--again")
    assert "Hint 2 of 3" in ask("hint", "silu")


def test_a_hint_follows_the_diagnosis_of_the_last_run(ask):
    _tested("mine", rope=Row("failing", failed=1, bugs=["clockwise"], cause=DIAGNOSED))
    ask("kata", "mine", "--status")
    known = hint_file.read("rope")
    expected = f"rope failed when it was last tested. {DIAGNOSED} Hint 1 of 4: {known.after['clockwise']}"
    assert ask("hint", "rope", "--impl", "mine") == expected
    assert ask("hint", "rope", "--impl", "mine").endswith(f"Hint 2 of 4: {known.hints[0]}")


def test_another_diagnosis_has_its_own_hint_and_the_general_ones_go_on(ask):
    known = hint_file.read("rope")
    _tested("mine", rope=Row("failing", failed=1))
    assert ask("hint", "rope").endswith(f"Hint 1 of 3: {known.hints[0]}")
    _tested("mine", rope=Row("failing", failed=1, bugs=["neighbouring_pairs"], cause="Your pairs are neighbours."))
    assert ask("hint", "rope").endswith(f"Hint 1 of 4: {known.after['neighbouring_pairs']}")
    assert ask("hint", "rope").endswith(f"Hint 3 of 4: {known.hints[1]}")


def test_a_diagnosis_that_has_no_hint_of_its_own_is_told_before_the_general_ones(ask):
    bug = next(bug.name for bug in zoo.bugs("rope") if bug.name not in hint_file.read("rope").after)
    _tested("mine", rope=Row("failing", failed=1, bugs=[bug], cause="Your output is wrong in this way."))
    expected = f"Your output is wrong in this way. Hint 1 of 3: {hint_file.read('rope').hints[0]}"
    assert ask("hint", "rope").endswith(expected)


def test_a_layer_whose_tests_passed_is_told_what_was_learnt(ask):
    _tested("mine", silu=Row("done", passed=30, selected=30))
    assert f"silu passed its tests when they last ran. {hint_file.read('silu').learnt}" in ask("hint", "silu")


def test_without_a_name_the_hint_is_of_the_folder_that_was_tested_last(ask):
    _tested("first", rope=Row("failing", failed=1, cause="The first one."))
    _tested("second", rope=Row("failing", failed=1, cause="The second one."))
    os.utime(board.FOLDER / board.file_name("second"), ns=(1, 1))
    assert "The first one." in ask("hint", "rope")
    assert "The second one." in ask("hint", "rope", "--impl", "second")


def test_a_hint_is_given_for_code_that_cannot_be_imported(ask, tmp_path):
    _tested("mine", rope=Row("failing", failed=1, cause="It was so."))
    (tmp_path / "mine" / "rope.py").write_text("def rope(:")
    assert "It was so. Hint 1 of 3" in ask("hint", "rope")


def test_a_board_of_an_earlier_version_is_still_read(ask):
    _tested("mine", rope=Row("failing", failed=1))
    path = board.FOLDER / board.file_name("mine")
    path.write_text('{"rope": {"state": "failing", "passed": 2, "failed": 1, "sentence": "out[0] is 1"}}')
    assert board.rows("mine")["rope"] == Row("failing", passed=2, failed=1, sentence="out[0] is 1")
    assert "Hint 1 of 3" in ask("hint", "rope", "--impl", "mine")


def test_every_layer_has_a_hints_file_and_there_is_no_other():
    files = {path.relative_to(hint_file.FOLDER).as_posix() for path in hint_file.FOLDER.rglob("*.*")}
    assert files == {f"{chapter}/{layer}.toml" for chapter, layers in CHAPTERS.items() for layer in layers}


@pytest.mark.parametrize("name", LAYERS)
def test_a_hints_file_has_three_hints_and_all_that_is_said_of_a_layer(name):
    path = hint_file.FOLDER / CHAPTER[name] / f"{name}.toml"
    assert tomllib.loads(path.read_text(encoding="utf-8")).keys() == KEYS
    known = hint_file.read(name)
    assert len(known.hints) == len(set(known.hints)) == 3
    assert all(known.hints)
    assert known.why.endswith(".")
    assert known.learnt.endswith(".")
    assert all("https://" in source or "http://" in source for source in known.read)


@pytest.mark.parametrize("name", LAYERS)
def test_hints_after_a_diagnosis_are_for_bugs_of_the_zoo(name):
    after = hint_file.read(name).after
    assert len(after) >= 3
    assert after.keys() <= {bug.name for bug in zoo.bugs(name)}


@pytest.mark.parametrize("name", LAYERS)
def test_no_hint_holds_a_line_of_our_solution(name):
    tree = ast.parse(inspect.getsource(layer_module(name)))
    ours = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == ours_in(name))
    statements = [node for node in ast.walk(ours) if isinstance(node, ast.Assign | ast.Return)]
    known = hint_file.read(name)
    told = "".join("".join([*known.hints, *known.after.values(), known.why, known.learnt]).split())
    for node in statements:
        if not isinstance(node.value, ast.Name | ast.Constant):
            assert "".join(ast.unparse(node.value).split()) not in told, ast.unparse(node)
