"""A layer is a column through the house: the same chapter and name in every room."""

from pathlib import Path

import pytest

from llama.layers import CHAPTER, CHAPTERS

ROOT = Path(__file__).parents[3]
ROOMS = {
    "src/llama/layers/{chapter}/{layer}.py",
    "tests/cases/{chapter}/{layer}.py",
    "tests/unit/{chapter}/test_{layer}.py",
    "tests/property/{chapter}/test_{layer}.py",
    "tests/zoo/{chapter}/{layer}.py",
    "benchmarks/{chapter}/bench_{layer}.py",
}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_layer_has_a_file_in_each_room_and_each_file_there_is_of_a_layer(room):
    expected = {room.format(chapter=chapter, layer=layer) for layer, chapter in CHAPTER.items()}
    folders = [ROOT / room.partition("/{chapter}")[0] / chapter for chapter in CHAPTERS]
    found = {path.relative_to(ROOT).as_posix() for folder in folders for path in folder.glob("*.py")}
    assert {path for path in found if not path.endswith("/__init__.py")} == expected
