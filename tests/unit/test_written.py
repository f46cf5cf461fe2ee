"""Is there anything to test? For a stub, or a file that fails to import, this one test fails; the others wait."""

import pytest

from tests.judge.assertions import fail


@pytest.mark.written
def test_it_is_written(any_layer):
    if any_layer.lacks:
        fail(any_layer.lacks)
