"""The options of the suite. They stand in a plugin, which pytest knows before it looks for a conftest.py.

In conftest.py they would come too late: of `pytest --impl ../kernels.py` pytest would take the path for
tests to run, and never find this project.
"""

import pytest
from _pytest.config.findpaths import determine_setup


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llama")
    group.addoption(
        "--impl",
        action="append",
        metavar="NAME",
        help="test the layers of NAME instead of our own: a dotted module, a .py file or a folder of them "
        "(repeatable; also in LLAMA_IMPL, separated by commas). --strict adds the tests of refused input.",
    )
    group.addoption(
        "--claims",
        metavar="WORDS",
        help="with --impl: test only what these words claim, such as 'float32 bfloat16, forward, no mask', "
        "in place of CLAIMS in the file; docs/kernels.md lists the words",
    )
    group.addoption("--record", metavar="FILE", help="run every test, and write what came of each layer as JSON")
    group.addoption("--device", default="cpu", help="the device that the tests run on: cpu (the default), cuda or mps")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look for the project's folder and configuration again, now that what follows --impl is not taken for a test."""
    given = early_config.known_args_namespace
    early_config._rootpath, early_config._inipath, early_config._inicfg, _ = determine_setup(
        inifile=given.inifilename,
        override_ini=given.override_ini,
        args=given.file_or_dir,
        rootdir_cmd_arg=given.rootdir,
        invocation_dir=early_config.invocation_params.dir,
    )
    early_config._inicache.clear()
