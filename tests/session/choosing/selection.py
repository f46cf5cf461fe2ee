"""Whose layers are tested, and which tests of them run, in which order.

A test takes a layer by its name, and runs once for every implementation under test that defines it. `any_layer` stands
for each layer in turn, `layer` for each that takes tensors, other names for those that GROUPS lists; `implementation`
for a whole set.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from llama import implementation
from llama.implementation import OURS, Implementation
from llama.layers import LAYERS, closest, takes_tensors, unknown
from tests import cheats, peers, zoo
from tests.cases import calls, target
from tests.judge.guards import surroundings
from tests.judge.guards.endings import Refused, contained, hold_the_process
from tests.judge.guards.surroundings import left_alone, refuse_changes
from tests.judge.items import room, subject_of
from tests.judge.subject import Subject
from tests.session.choosing import apart, claims
from tests.session.choosing.keyword import asked_for, is_about


@dataclass
class UnderTest:
    implementations: list[Implementation]
    foreign: bool = True
    """Another's: ours are not tested then, and neither is the rest of the house."""
    refused: dict[str, str] = field(default_factory=dict)
    """Of cheats: those that were refused when they were imported, with the sentence."""


UNDER_TEST = pytest.StashKey[UnderTest]()
GROUPS = {
    "any_layer": LAYERS,
    "layer": tuple(layer for layer in LAYERS if takes_tensors(layer)),
    "python_layer": tuple(layer for layer in LAYERS if not takes_tensors(layer)),
    "batched_layer": tuple(calls.batched()),
    "differentiable_layer": tuple(calls.differentiable()),
    "gradient_layer": tuple(calls.gradients()),
    "upstream_layer": tuple(calls.with_upstream()),
    "summing_layer": tuple(calls.with_sums()),
    "forward_layer": tuple(layer for layer in LAYERS if takes_tensors(layer) and layer not in calls.gradients()),
}
ABSENT = "not defined"
ORDER = ("unit", "property", "integration")


def choose(config: pytest.Config) -> UnderTest:
    """What --zoo, --peers, --cheats, --impl and LLAMA_IMPL ask for. Raises UsageError where there is no such thing."""
    if config.getoption("--claims") is not None and not config.getoption("--impl"):
        raise pytest.UsageError("--claims says what an implementation claims: it needs --impl")
    names = config.getoption("--impl") or [n for n in os.environ.get("LLAMA_IMPL", "").split(",") if n]
    if config.getoption("--apart"):
        surroundings.take()
        return UnderTest(_apart(config, names))
    for option in ("--forbid", "--allow", "--time-limit", "--memory-limit"):
        if config.getoption(option):
            raise pytest.UsageError(f"{option} is for layers that run in processes of their own: it needs --apart")
    if config.getoption("--zoo"):
        return UnderTest([bug.implementation for bug in zoo.everything()])
    if not names and not config.getoption("--peers") and not config.getoption("--cheats"):
        return UnderTest([implementation.load(name) for name in OURS], foreign=False)
    hold_the_process()
    surroundings.take()
    if config.getoption("--peers"):
        with warnings.catch_warnings(action="ignore"):  # a layer of others may warn
            return UnderTest(peers.everything())
    if config.getoption("--cheats"):
        return _cheats()
    return UnderTest(_loaded(config, lambda: [_load(name) for name in names]))


def _apart(config: pytest.Config, names: list[str]) -> list[Implementation]:
    if config.getoption("--zoo"):
        return [*apart.start_known(config, apart.bugs())]
    if config.getoption("--peers"):
        with warnings.catch_warnings(action="ignore"):  # a layer of others may warn
            return [*apart.start_known(config, apart.right_ones())]
    if not names:
        raise pytest.UsageError("--apart runs the layers of others: it needs --impl")
    return _loaded(config, lambda: [*apart.start(config, names)])


def _loaded(config: pytest.Config, load: Callable[[], list[Implementation]]) -> list[Implementation]:
    """The implementations of --impl, with what --claims says of them. Raises UsageError."""
    try:
        found = _told_apart(load())
        if (claimed := config.getoption("--claims")) is not None:
            for one in found:
                one.claim(claimed)
        return found
    except (implementation.ImplementationError, Refused) as error:
        raise pytest.UsageError(f"--impl {error}") from error


def _load(name: str) -> Implementation:
    """An implementation of another, which may do nothing when it is imported but define its layers."""
    with left_alone(name), contained(name), warnings.catch_warnings(action="ignore"):
        loaded = implementation.load(name)
    refuse_changes(name)
    return loaded


def _cheats() -> UnderTest:
    chosen = UnderTest([])
    for module in cheats.everything():
        name = module.removeprefix("tests.cheats.")
        try:
            loaded = _load(module)
        except (implementation.ImplementationError, Refused) as error:
            chosen.refused[name] = str(error)
        else:
            loaded.name = name
            chosen.implementations.append(loaded)
    return chosen


def _told_apart(loaded: list[Implementation]) -> list[Implementation]:
    """Where two have the same name, or one has one of ours, each is called by what it was loaded from."""
    names = [i.name for i in loaded]
    for i in loaded:
        if names.count(i.name) > 1 or (i.name in OURS and not i.is_ours):
            i.name = i.source or i.name
    return loaded


def pytest_report_header(config: pytest.Config) -> list[str]:
    chosen = config.stash[UNDER_TEST]
    if not chosen.foreign:
        return [f"under test: {', '.join(i.name for i in chosen.implementations)} from src/llama/layers"]
    if config.getoption("--zoo"):
        return [f"under test: {len(chosen.implementations)} bugs from tests/zoo"]
    if config.getoption("--cheats"):
        return [f"under test: {len(chosen.implementations) + len(chosen.refused)} cheats from tests/cheats"]
    lines = [f"under test: {i.name} from {', '.join(_places(i))}" for i in chosen.implementations]
    lines += [line for i in chosen.implementations if (line := claims.header(i))]
    return lines + [f"left out of {i.name}: {sentence}" for i in chosen.implementations for sentence in i.left_out]


def _places(of: Implementation) -> Iterator[str]:
    """`my_llama (rope, attention, 17 stubs)`: a folder where each layer has a file of its name, else each file."""
    places: dict[str, list[str]] = defaultdict(list)
    for layer, file in of.files.items():
        path = Path(file)
        place = os.path.relpath(path.parent if path.stem == layer else path) if path.exists() else file
        places[place].append(layer)
    for place, layers in places.items():
        words = [layer for layer in layers if layer not in of.stubs | of.unloaded.keys()]
        stubs, unloaded = (sum(layer in those for layer in layers) for those in (of.stubs, of.unloaded))
        words += [f"{stubs} stubs"] if stubs else []
        words += [f"{unloaded} not loaded"] if unloaded else []
        yield f"{place} ({', '.join(words)})"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of `--impl my_llama -k rope`, leave out the files that say nothing of rope: their imports take seconds."""
    layers, name = asked_for(config), collection_path.name
    if not layers or not config.stash[UNDER_TEST].foreign or not name.startswith("test_"):
        return None
    about = {"test_written.py", *(f"test_{layer}.py" for layer in layers)}
    return None if name in about or collection_path.parent.name == "every_layer" else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    under_test = metafunc.config.stash[UNDER_TEST].implementations
    if layers := asked_for(metafunc.config):
        # Of `--zoo -k rope` a test need not be made for each bug of the other layers, only to be deselected.
        under_test = [i for i in under_test if not i.layers.keys().isdisjoint(layers)]
    if metafunc.definition.get_closest_marker("tensors"):
        under_test = [i for i in under_test if not (i.is_ours and i.name == "naive")]
    for name in metafunc.fixturenames:
        subjects: Mapping[str, Subject | Implementation]
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
        if i.unloaded or not i.layers.keys() - i.stubs:
            continue
        i = claims.guarded(i)
        yield i.name, i.completed()
        if not i.is_ours and i.composes:
            yield f"{i.name}-parts", i.completed().recomposed()


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
    folder = room(item)
    return ORDER.index(folder) if folder in ORDER else len(ORDER), item.get_closest_marker("written") is None


def _is_selected(item: pytest.Item, config: pytest.Config) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec and ABSENT in callspec.params.values():
        return False
    if item.get_closest_marker("float64") and torch.float64 not in target.ALL:
        return False
    subject, layers = subject_of(item), asked_for(config)
    if not config.stash[UNDER_TEST].foreign:
        return not layers or (subject.layer in layers if isinstance(subject, Subject) else is_about(item, layers))
    if subject is None or (item.get_closest_marker("refusal") and not config.getoption("strict")):
        return False
    if isinstance(subject, Subject) and subject.implementation not in config.stash[UNDER_TEST].implementations:
        return False  # a test that brings a layer of its own, as those of the peers do
    if layers:
        return isinstance(subject, Subject) and subject.layer in layers
    # A whole model is not needed to see that a layer is wrong.
    return isinstance(subject, Subject) or not any(map(config.getoption, ("--zoo", "--cheats", "--apart")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    keyword = config.option.keyword
    if keyword.isidentifier() and keyword not in LAYERS and closest(keyword):
        ran = any(terminalreporter.stats.get(outcome) for outcome in ("passed", "failed", "error", "skipped"))
        if not ran:
            terminalreporter.write_line(unknown(keyword))


def pytest_runtest_setup(item: pytest.Item) -> None:
    subject = subject_of(item)
    if isinstance(subject, Subject) and subject.lacks and item.get_closest_marker("written") is None:
        pytest.skip(subject.lacks)
