"""What a pytest item is about: its layer, and its name as a sentence."""

from pathlib import Path

import pytest

from llama.implementation import Implementation
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
    """The test's name as words."""
    return item.originalname.removeprefix("test_").replace("_", " ")
