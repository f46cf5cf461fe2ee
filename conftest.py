"""The options of the suite, the profiles of Hypothesis, and the plugins, which stand in tests/.

pytest                        our three implementations
pytest --impl my_llama        the layers of another: a dotted module, a .py file or a folder of them
pytest --impl my_llama -k rope     one layer of it, with few examples, up to the first failure
pytest --device cuda          the same tests on that device
pytest --spec                 the tests as sentences
HYPOTHESIS_PROFILE=quick      fewer examples per property (quick, default, ci, thorough)
"""

import gc
import os

import hypothesis
import jaxtyping
import pytest
import torch
from hypothesis import Phase

import tests.typecheck  # noqa: F401
from llama.layers import LAYERS

# Before their first import: the annotations of the modules that have shapes are enforced here, and only here.
SHAPED = [f"llama.layers.{layer}" for layer in LAYERS] + [
    f"llama.{module}" for module in ("model", "tokenizer", "data", "evaluation", "train", "generate")
]
jaxtyping.install_import_hook(SHAPED, "tests.typecheck.enforce")

from llama.device import usable  # noqa: E402
from tests import background, failures, pictures, progress, selection, strategies  # noqa: E402
from tests.background import Background  # noqa: E402
from tests.pictures import GALLERY, Gallery  # noqa: E402
from tests.selection import UNDER_TEST  # noqa: E402
from tests.specification import Specification  # noqa: E402
from tests.subject import Subject  # noqa: E402
from tests.zoo.table import Table  # noqa: E402

MARKERS = (
    "tensors: compares with the naive loops or needs gradients, so the naive implementation itself is left out",
    "float64: works in float64 alone, so it is left out on a device without it",
    "written: asks whether there is anything to test; for a stub it is the one test that runs, and fails",
    "refusal: says how wrong input is refused; with --impl it runs only with --strict",
    "suite(files, *arguments, **environment): a run of the suite that the test looks at, see tests/background.py",
)
PROFILES = {"quick": 5, "default": 15, "ci": 50, "thorough": 300}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llama")
    group.addoption(
        "--spec",
        action="store_true",
        help="print the tests as sentences, without running them; with --impl, run them and tick each",
    )
    group.addoption("--plots", action="store_true", help="draw what the layers do, into out/plots/index.html")
    group.addoption("--peers", action="store_true", help="run the suite against right implementations of other kinds")
    group.addoption("--zoo", action="store_true", help="run the suite against each known bug, and show what kills it")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # The tensors are tiny: a second thread would spend its time waiting, and with other work on the machine
    # (pytest -n) each wait is as long as a time slice.
    torch.set_num_threads(1)
    try:
        strategies.use_device(usable(config.getoption("--device")))
    except ValueError as error:
        raise pytest.UsageError(f"--{error}") from error
    chosen = config.stash[UNDER_TEST] = selection.choose(config)
    if chosen.foreign:  # our own annotations are not what is tested, and checking them takes time
        jaxtyping.config.update("jaxtyping_disable", True)
    config.stash[GALLERY] = Gallery()
    plugins = [selection, progress, pictures, background, Background()]
    zoo, practising = config.getoption("--zoo"), chosen.foreign and bool(config.option.keyword)
    one_layer = practising and config.option.keyword in LAYERS
    if zoo:
        plugins.append(Table(first_death=bool(config.option.maxfail)))
        config.option.maxfail = 0
    else:
        plugins.append(failures)
        if one_layer and not config.option.maxfail:
            config.option.maxfail = 1  # one thing at a time; --maxfail=1000 shows them all
    if config.getoption("--spec"):
        plugins.append(Specification(running=chosen.foreign))
    for plugin in plugins:
        config.pluginmanager.register(plugin)
    _choose_profile(config, "quick" if practising and not zoo else "default", shrink=not zoo)


def _choose_profile(config: pytest.Config, otherwise: str, shrink: bool) -> None:
    chosen = os.environ.get("HYPOTHESIS_PROFILE", otherwise)
    if chosen not in PROFILES:
        raise pytest.UsageError(f"HYPOTHESIS_PROFILE must be one of {', '.join(PROFILES)}, got {chosen}")
    # The same examples on every run, unless a search for new ones is asked for.
    searching = chosen == "thorough" or config.getoption("--hypothesis-seed") is not None
    hypothesis.settings.register_profile(
        chosen,
        max_examples=PROFILES[chosen],
        derandomize=not searching,
        database=None,
        deadline=None,  # a time limit would only measure how busy the machine is
        print_blob=False,
        # Not explain, which tells of a failing example what lines it ran; tests/failures.py says it in words.
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])),
        report_multiple_bugs=False,
    )
    hypothesis.settings.load_profile(chosen)


def pytest_report_header() -> str:
    return f"device: {strategies.DEVICE}, profile: {hypothesis.settings.get_current_profile_name()}"


def pytest_collection_finish() -> None:
    # What is there by now stays to the end, and most of it is torch: no need to walk through it at each collection.
    gc.freeze()


def pytest_runtest_setup() -> None:
    # A failure speaks of its own test's call and sizes, not of those before it.
    Subject.last = strategies.Case.last = None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reading = session.config.option.collectonly or session.config.getoption("--spec")
    if exitstatus == pytest.ExitCode.OK and not reading:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not reporter.stats.get("passed"):
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # nothing but skips proves nothing
