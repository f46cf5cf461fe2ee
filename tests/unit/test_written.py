"""Is there anything to test? For a stub, or a file that fails to import, this one test fails; the others wait."""

import pytest

from tests.judge.assertions import fail


@pytest.mark.written
def test_it_is_written(layer):
    if layer.lacks:
        fail(layer.lacks)
