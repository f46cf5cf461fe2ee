"""What a pytest item is about: its layer, and its name as a sentence."""

import functools
import re
from pathlib import Path

import pytest

from llama.implementation import Implementation
from llama.layers import LAYERS, parameters_of
from tests.judge.subject import Subject

TESTS = Path(__file__).parents[1]


def subject_of(item: pytest.Item) -> Subject | Implementation | None:
    """The layer, or the whole implementation, that the test is about."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec else ()
    return next((value for value in values if isinstance(value, Subject | Implementation)), None)


def room(item: pytest.Item) -> str:
    """unit, property or integration; for a file elsewhere, nothing."""
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


def claim(item: pytest.Function) -> str:
    """The test's name as words, with the points of its numbers and the underscores of names: `12.5`, `w_v`."""
    words = item.originalname.removeprefix("test_").replace("_", " ")
    words = re.sub(r"\b(\d+) (\d+)\b", r"\1.\2", words)
    return _identifiers().sub(lambda match: match[0].replace(" ", "_"), words)


@functools.cache
def _identifiers() -> re.Pattern[str]:
    """The layers, their parameters and the axes of these, whose names have an underscore, as they stand in words."""
    parameters = [parameter for layer in LAYERS for parameter in parameters_of(layer).values()]
    axes = [axis for p in parameters for axis in re.findall(r"\w+", getattr(p.annotation, "dim_str", ""))]
    names = {name for name in (*LAYERS, *axes, *(p.name for p in parameters)) if "_" in name}
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(name.replace('_', ' ') for name in longest_first)})\b")
