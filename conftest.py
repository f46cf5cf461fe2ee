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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import Phase
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
from llama.implementation import OURS, Implementation  # noqa: E402
from tests import background, failures, pictures, progress, strategies, zoo  # noqa: E402
from tests.specification import Specification  # noqa: E402
from tests.subject import Subject  # noqa: E402
from tests.zoo.table import Table  # noqa: E402

MARKERS = (
    "tensors: compares with the naive loops or needs gradients, so the naive implementation itself is left out",
    "float64: works in float64 alone, so it is left out on a device without it",
    "written: asks whether there is anything to test; for a stub it is the one test that runs, and fails",
    "suite(files, *arguments, **environment): a run of the suite that the test looks at, see tests/background.py",
    "refusal: says how wrong input is refused; with --impl it runs only with --strict",
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
    config.pluginmanager.register(background)
    config.pluginmanager.register(background.Background())
    config.stash[pictures.GALLERY] = pictures.Gallery()
    config.pluginmanager.register(pictures)
    if config.getoption("--spec"):
        config.pluginmanager.register(Specification(running=bool(config.getoption("--impl"))))
    for plugin in (failures, progress) if not config.getoption("--zoo") else (progress,):
        config.pluginmanager.register(plugin)
    # The tensors are tiny: a second thread would spend its time waiting, and with other work on the machine
    # (pytest -n) each wait is as long as a time slice.
    torch.set_num_threads(1)
    try:
        strategies.use_device(usable(config.getoption("--device")))
    except ValueError as error:
        raise pytest.UsageError(f"--{error}") from error
    if config.getoption("--zoo"):
        config.pluginmanager.register(Table(first_death=bool(config.option.maxfail)))
        config.option.maxfail = 0
        config.stash[FOREIGN] = True
        config.stash[IMPLEMENTATIONS] = [bug.implementation for bug in zoo.everything()]
        _choose_profile(config, "default", shrink=False)
        return
    if config.getoption("--peers"):
        from tests.peers import PEERS  # which imports transformers

        config.stash[FOREIGN] = True
        config.stash[IMPLEMENTATIONS] = [Implementation(name, layers) for name, layers in PEERS.items()]
        _choose_profile(config, "default")
        return
    names = config.getoption("--impl") or [n for n in os.environ.get("LLAMA_IMPL", "").split(",") if n]
    config.stash[FOREIGN] = bool(names)
    practising = bool(names) and bool(config.option.keyword)
    if practising and not config.option.maxfail:
        config.option.maxfail = 1  # one thing at a time; --maxfail=1000 shows them all
    _choose_profile(config, "quick" if practising else "default")
    try:
        config.stash[IMPLEMENTATIONS] = _told_apart([implementation.load(name) for name in names or OURS])
    except implementation.ImplementationError as error:
        raise pytest.UsageError(f"--impl {error}") from error


def _told_apart(loaded: list[Implementation]) -> list[Implementation]:
    """Where two have the same name, or one of ours, each is called by what it was loaded from."""
    names = [i.name for i in loaded]
    for i in loaded:
        if names.count(i.name) > 1 or (i.name in OURS and not i.is_ours):
            i.name = i.source or i.name
    return loaded


FOREIGN = pytest.StashKey[bool]()
IMPLEMENTATIONS = pytest.StashKey[list[Implementation]]()


def _choose_profile(config: pytest.Config, otherwise: str, shrink: bool = True) -> None:
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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of `--impl my_llama -k rope`, leave out the files that say nothing of rope: their imports take seconds."""
    layer, name = config.option.keyword, collection_path.name
    about = (f"test_{layer}.py", "test_every_layer.py", "test_written.py")
    return (
        True if config.stash[FOREIGN] and layer in LAYERS and name.startswith("test_") and name not in about else None
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for under_test in config.stash[IMPLEMENTATIONS]:
        by_file: dict[str, list[str]] = {}
        for layer, file in under_test.files.items():
            by_file.setdefault(os.path.relpath(file) if config.stash[FOREIGN] else "src/llama/layers", []).append(layer)
        where = ", ".join(f"{file} ({', '.join(layers)})" for file, layers in by_file.items())
        lines.append(f"under test: {under_test.name} from " + (where if config.stash[FOREIGN] else "src/llama/layers"))
    return [*lines, f"device: {strategies.DEVICE}, profile: {hypothesis.settings.get_current_profile_name()}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    # A failure speaks of its own test's call and sizes, not of those before it.
    Subject.last = strategies.Case.last = None
    subject = progress.subject_of(item)
    if isinstance(subject, Subject) and subject.is_stub and item.get_closest_marker("written") is None:
        pytest.skip(f"{subject.layer} is not written yet")
    failing = progress.failing(subject) if isinstance(subject, Implementation) and item.config.stash[FOREIGN] else []
    if failing:
        pytest.skip(f"the whole stack waits until its layers are right: {', '.join(failing)}")


ABSENT = "not defined"
GROUPS = {
    "layer": LAYERS,
    "batched_layer": tuple(strategies.BATCHED),
    "differentiable_layer": tuple(strategies.DIFFERENTIABLE),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    under_test = metafunc.config.stash[IMPLEMENTATIONS]
    if metafunc.definition.get_closest_marker("tensors"):
        under_test = [i for i in under_test if not (i.is_ours and i.name == "naive")]
    for name in metafunc.fixturenames:
        subjects: dict[str, Any]
        if name == "implementation":
            subjects = dict(_stacks(under_test))
        elif name in GROUPS:
            subjects = {f"{n}-{i.name}": Subject(n, i) for n in GROUPS[name] for i in under_test if n in i.layers}
        elif name in LAYERS:
            subjects = {i.name: Subject(name, i) for i in under_test if name in i.layers}
        else:
            continue
        # Without a value the test would be skipped; it is deselected instead, see below.
        metafunc.parametrize(name, list(subjects.values()) or [ABSENT], ids=list(subjects) or [ABSENT])


def _stacks(under_test: list[Implementation]) -> Iterator[tuple[str, Implementation]]:
    """Each implementation as a whole, and, where it composes layers itself, its parts as we compose them too."""
    for i in under_test:
        written = i.layers.keys() - i.stubs
        if written:
            yield i.name, i.completed()
        if not i.is_ours and i.composes:
            yield f"{i.name}-parts", i.completed().recomposed()


ORDER = ("unit", "property", "integration")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Worked examples first: the first failure is to be the one that says most.
    items.sort(key=_place)
    selected: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (selected if _is_selected(item, config) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = selected


def _place(item: pytest.Item) -> tuple[int, bool]:
    folder = item.path.parent.name
    return ORDER.index(folder) if folder in ORDER else len(ORDER), item.get_closest_marker("written") is None


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
    # `-k rope` is about rope alone, not about rope_frequencies; `-k llama` not about everything in my_llama.
    if config.option.keyword in LAYERS and getattr(progress.subject_of(item), "layer", "") != config.option.keyword:
        return False
    # Another's layers are under test: ours are not, and neither is the rest of the house.
    if config.getoption("--zoo") and not isinstance(progress.subject_of(item), Subject):
        return False  # a whole model is not needed to see that a layer is wrong
    return bool(subjects) and (config.getoption("strict") or item.get_closest_marker("refusal") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FOREIGN] and not config.option.collectonly and not config.getoption("--zoo"):
        for under_test in (i for i in config.stash[IMPLEMENTATIONS] if i.source):
            terminalreporter.section(f"{under_test.name}, in reading order")
            terminalreporter.write_line(progress.show(under_test))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reading = session.config.option.collectonly or session.config.getoption("--spec")
    if exitstatus == pytest.ExitCode.OK and not reading:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not reporter.stats.get("passed"):
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # nothing but skips proves nothing
