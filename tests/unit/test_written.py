"""Is there anything to test? For a layer that is only a stub this is the one test that fails; the others wait."""

import pytest

from tests.judge.assertions import fail


@pytest.mark.written
def test_it_is_written(layer):
    if layer.is_stub:
        fail(f"{layer.layer} is not written yet")
