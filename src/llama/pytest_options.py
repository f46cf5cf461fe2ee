"""The options of the suite. They stand in a plugin, which pytest knows before it looks for a conftest.py.

In conftest.py they would come too late: of `pytest --impl ../kernels.py` pytest would take the path for
tests to run, and never find this project.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llama")
    group.addoption(
        "--impl",
        action="append",
        metavar="NAME",
        help="test the layers of NAME instead of our own: a dotted module, a .py file or a folder of them "
        "(repeatable; also in LLAMA_IMPL, separated by commas). --strict adds the tests of refused input.",
    )
    group.addoption("--device", default="cpu", help="the device that the tests run on: cpu (the default), cuda or mps")
