"""Which implementations are tested, on which device, with how many examples.

    pytest                        our three implementations
    pytest --impl my_llama        the layers of another: a dotted module, a .py file or a folder of them
    pytest --device cuda          the same tests on that device
    HYPOTHESIS_PROFILE=quick      fewer examples per property (quick, default, ci, thorough)

A test takes a layer by its name: `def test_zero_in_zero_out(rms_norm)` runs once for every
implementation under test that defines rms_norm. `layer` stands for every layer in turn (and
`batched_layer`, `differentiable_layer` for those that are), `implementation` for a whole set of them.
"""

import os
from typing import Any

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401
from llama.layers import LAYERS

# Before their first import: the annotations of the modules that have shapes are enforced here, and only here.
SHAPED = [f"llama.layers.{layer}" for layer in LAYERS] + [
    f"llama.{module}" for module in ("model", "tokenizer", "data", "evaluation", "train", "generate")
]
install_import_hook(SHAPED, "tests.typecheck.enforce")

from llama import implementation  # noqa: E402
from llama.device import usable  # noqa: E402
from tests import strategies  # noqa: E402
from tests.subject import Subject  # noqa: E402

MARKERS = (
    "tensors: compares with the naive loops or needs gradients, so the naive implementation itself is left out",
    "float64: works in float64 alone, so it is left out on a device without it",
    "refusal: says how wrong input is refused; with --impl it runs only with --strict",
)
PROFILES = {"quick": 5, "default": 15, "ci": 50, "thorough": 300}


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
    _choose_profile(config)
    names = config.getoption("--impl") or [n for n in os.environ.get("LLAMA_IMPL", "").split(",") if n]
    config.stash[FOREIGN] = bool(names)
    try:
        config.stash[IMPLEMENTATIONS] = [implementation.load(name) for name in names or implementation.OURS]
    except implementation.ImplementationError as error:
        raise pytest.UsageError(f"--impl {error}") from error


FOREIGN = pytest.StashKey[bool]()
IMPLEMENTATIONS = pytest.StashKey[list[implementation.Implementation]]()


def _choose_profile(config: pytest.Config) -> None:
    chosen = os.environ.get("HYPOTHESIS_PROFILE", "default")
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
        report_multiple_bugs=False,
    )
    hypothesis.settings.load_profile(chosen)


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for under_test in config.stash[IMPLEMENTATIONS]:
        by_file: dict[str, list[str]] = {}
        for layer, file in under_test.files.items():
            by_file.setdefault(os.path.relpath(file) if config.stash[FOREIGN] else "src/llama/layers", []).append(layer)
        where = ", ".join(f"{file} ({', '.join(layers)})" for file, layers in by_file.items())
        lines.append(f"under test: {under_test.name} from " + (where if config.stash[FOREIGN] else "src/llama/layers"))
    return [*lines, f"device: {strategies.DEVICE}, profile: {os.environ.get('HYPOTHESIS_PROFILE', 'default')}"]


def pytest_runtest_setup() -> None:
    # A failure speaks of its own test's call and sizes, not of those before it.
    Subject.last = strategies.Case.last = None


ABSENT = "not defined"
GROUPS = {
    "layer": LAYERS,
    "batched_layer": tuple(strategies.BATCHED),
    "differentiable_layer": tuple(strategies.DIFFERENTIABLE),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    under_test = metafunc.config.stash[IMPLEMENTATIONS]
    if metafunc.definition.get_closest_marker("tensors"):
        under_test = [i for i in under_test if i.name != "naive"]
    for name in metafunc.fixturenames:
        subjects: dict[str, Any]
        if name == "implementation":
            subjects = {i.name: i.completed() for i in under_test}
        elif name in GROUPS:
            subjects = {f"{n}-{i.name}": Subject(n, i) for n in GROUPS[name] for i in under_test if n in i.layers}
        elif name in LAYERS:
            subjects = {i.name: Subject(name, i) for i in under_test if name in i.layers}
        else:
            continue
        # Without a value the test would be skipped; it is deselected instead, see below.
        metafunc.parametrize(name, list(subjects.values()) or [ABSENT], ids=list(subjects) or [ABSENT])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    selected: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (selected if _is_selected(item, config) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = selected


def _is_selected(item: pytest.Item, config: pytest.Config) -> bool:
    callspec = getattr(item, "callspec", None)
    taken = {*LAYERS, *GROUPS, "implementation"}
    subjects = {name: value for name, value in (callspec.params if callspec else {}).items() if name in taken}
    if ABSENT in subjects.values():
        return False
    if item.get_closest_marker("float64") and torch.float64 not in strategies.ALL:
        return False
    if not config.stash[FOREIGN]:
        return True
    # Another's layers are under test: ours are not, and neither is the rest of the house.
    return bool(subjects) and (config.getoption("strict") or item.get_closest_marker("refusal") is None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not reporter.stats.get("passed"):
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # nothing but skips proves nothing
