"""The options of pytest; --impl, --device and --record stand in src/llama/kata/pytest_options.py.

They choose the tests (tests/session/plugin.py) or the benchmarks (benchmarks/session.py).

pytest                        our three implementations, on up to 4 cores (pytest -n 0: in this process)
pytest --impl my_llama        the layers of another: a dotted module, a .py file or a folder of them
pytest --impl my_llama -k rope     one layer of it, with few examples, up to the first failure
pytest --impl kernels.py --claims "bfloat16, forward"     what its author claims, and no more
pytest --impl mine.py --apart      the same for code that you do not trust, in processes of its own
pytest --device cuda          the same tests on that device
pytest --zoo                  the suite against every known bug; with --as liger, the tests of others against them
pytest --spec                 the tests as sentences
pytest --benchmark            what the layers cost, beside those of others; no test runs
HYPOTHESIS_PROFILE=quick      fewer examples per property (quick, default, ci, thorough)
"""

import os
import re
from pathlib import Path

import jaxtyping
import pytest

import tests.session.running.annotations  # noqa: F401

SOURCE = Path(__file__).parent / "src"
SHAPED = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8") and path.parent.name != "contract"
]
"""The modules that annotate shapes: they are enforced while our own layers are tested."""

PLAIN = re.compile(r"-[qv]+|-r\w+|--zoo|--peers|--cheats")
"""Arguments with which the whole suite is still that."""
TOLD = {"LLAMA_IMPL", "PYTEST_ADDOPTS"}
"""What else may ask for a part of it: variables of the environment."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llama")
    group.addoption(
        "--spec",
        action="store_true",
        help="print the tests as sentences, without running them; with --impl, run them and tick each",
    )
    group.addoption(
        "--plots",
        action="store_true",
        help="draw what the layers do, into out/plots/index.html; runs only the tests that draw",
    )
    group.addoption("--peers", action="store_true", help="run the suite against right implementations of other kinds")
    group.addoption("--zoo", action="store_true", help="run the suite against each known bug, and show what kills it")
    group.addoption("--cheats", action="store_true", help="run the suite against each cheat, and show what refuses it")
    group.addoption(
        "--as",
        nargs="?",
        const="all",
        metavar="NAME",
        help="with --zoo: which bugs would pass the tests of another project, such as liger; all without a name",
    )
    group.addoption("--apart", action="store_true", help="with --impl: run each layer in a process of its own")
    group.addoption("--time-limit", type=float, metavar="S", help="with --apart: seconds for one layer")
    group.addoption("--memory-limit", type=int, metavar="MB", help="with --apart: memory for one layer")
    group.addoption(
        "--forbid",
        action="append",
        default=[],
        metavar="NAME",
        help="with --apart: a function of torch that no layer may call, such as torch.nn.functional.rms_norm; "
        "fused for all of its ready-made layers (repeatable)",
    )
    group.addoption(
        "--allow", action="append", default=[], metavar="NAME", help="with --apart: a library that may be imported"
    )
    group.addoption("--examples", type=int, metavar="N", help="examples per property, in place of the profile's")
    group.addoption("--benchmark", action="store_true", help="measure what the layers cost, and run no test")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in several processes; whoever asks for anything else gets what pytest does."""
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    plain = all(map(PLAIN.fullmatch, config.invocation_params.args)) and not TOLD & os.environ.keys()
    is_worker = hasattr(config, "workerinput")
    if whole and plain and not is_worker and config.getoption("numprocesses", 0) is None:
        config.option.numprocesses, config.option.maxprocesses, config.option.dist = "auto", 4, "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--as") and not config.getoption("--zoo"):
        raise pytest.UsageError("--as asks which bugs of the zoo others would let pass: it needs --zoo")
    for option in ("--spec", "--plots", "--as", "--benchmark"):
        if (workers := config.getoption("numprocesses", None)) and config.getoption(option):
            raise pytest.UsageError(f"{option} needs a single process: leave out -n {workers}")
    if config.getoption("--benchmark"):
        from benchmarks import session as chosen
    else:
        if not config.getoption("--impl"):
            # Before the first import of these modules: their annotations are enforced here, and only here. It takes
            # time, which a benchmark would measure, and where others' layers are tested it would be for nothing.
            jaxtyping.install_import_hook(SHAPED, "tests.session.running.annotations.enforce")
        from tests.session import plugin as chosen  # type: ignore[no-redef]
    config.pluginmanager.register(chosen)
