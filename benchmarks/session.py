"""The plugin of `pytest --benchmark`: what is collected, in which columns, and what is shown at the end."""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.logger import PytestBenchmarkWarning

from benchmarks import cases, report
from benchmarks import machine as machines
from benchmarks.machine import Machine
from llama import implementation
from llama.implementation import OURS, Implementation
from llama.layers import LAYERS
from tests.judge.guards.endings import release_the_process
from tests.session.choosing import selection

FOLDER = Path(__file__).parent
OUT = Path("out") / "benchmarks"
COLUMNS = pytest.StashKey[list[Implementation]]()
# Options that ask pytest-benchmark for its own table, which holds a line per number, and what they are otherwise.
ITS_TABLE: dict[str, Any] = {
    "sort": "min",
    "group_by": "group",
    "columns": None,
    "name": "normal",
    "time_unit": None,
    "histogram": [],
    "cprofile": None,
}


def pytest_configure(config: pytest.Config) -> None:
    for other in ("--zoo", "--peers", "--spec", "--plots"):
        if config.getoption(other):
            raise pytest.UsageError(f"--benchmark runs benchmarks/ and nothing else: {other} is for the tests")
    if config.getoption("--device") != "cpu":
        raise pytest.UsageError(f"--benchmark measures on the cpu, got --device {config.getoption('--device')}")
    chosen = selection.choose(config)
    ours = [implementation.load(name) for name in OURS]
    config.stash[COLUMNS] = ours + (chosen.implementations if chosen.foreign else [])
    if config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args = [str(FOLDER)]
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
    # It warns of what is no error: that nothing was selected, that there is no run to compare with, or, of any two
    # runs, that the clock of the processor is another one now.
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)
    warnings.filterwarnings("ignore", "Benchmark machine_info is different", PytestBenchmarkWarning)
    option = config.option
    option.benchmark_json = option.benchmark_json or OUT / "benchmarks.json"
    option.benchmark_json.parent.mkdir(parents=True, exist_ok=True)
    option.benchmark_quiet |= all(getattr(option, f"benchmark_{name}") == usual for name, usual in ITS_TABLE.items())


def pytest_report_header(config: pytest.Config) -> list[str]:
    columns = ", ".join(i.name for i in config.stash[COLUMNS])
    header = [f"benchmarks: {torch.get_num_threads()} threads, {machines.measured()}", f"columns: {columns}, and peers"]
    if cases.MULTIPLIED != cases.HALF_AND_SINGLE:
        header.append("bfloat16 is imitated here: products, and what is made of them, are measured in float32 alone")
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores / 2:
        # A thread that waits for a core holds up all others, for a whole time slice of some milliseconds.
        header.append(f"busy: load {load:.1f} on {cores} cores; with OMP_NUM_THREADS=1 short times can be trusted more")
    return header


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of `-k rope`, leave out the other files, and of them all those that are no benchmarks."""
    if collection_path.suffix != ".py":
        return None
    asked = config.option.keyword if config.option.keyword in LAYERS else ""
    return True if not collection_path.match(f"bench_{asked or '*'}.py") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        cells = list(metafunc.function.cells(metafunc.config.stash[COLUMNS]))
        metafunc.parametrize("cell", cells, ids=str)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    release_the_process(int(session.exitstatus))


@pytest.fixture(scope="module")
def machine() -> Machine:
    """What the machine reaches at this time: a layer is compared with what was possible while it ran."""
    return machines.measured()


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = config._benchmarksession  # type: ignore[attr-defined]
    current = {
        b.fullname: report.Measurement.of(b.as_dict(include_data=False))
        for b in session.benchmarks
        if b and not b.has_error
    }
    write = terminalreporter.write_line
    for title, lines in report.tables(list(current.values())):
        terminalreporter.section(title)
        for line in lines:
            write(line)
    summaries: dict[str, Callable[..., Iterator[str]]] = {
        "vectorized beside naive": report.over_naive,
        "fused beside its peers": report.standing,
    }
    for i in config.stash[COLUMNS]:
        if not i.is_ours:
            summaries[f"{i.name} beside fused and its best peer"] = functools.partial(report.beside, column=i.name)
    for title, summary in summaries.items():
        lines = list(summary(list(current.values())))
        if lines:
            terminalreporter.section(title)
            for line in lines:
                write(line)
    for path in report.charts(list(current.values()), config.option.benchmark_json.parent):
        write(f"chart: {path}")
    if current:
        write(f"all numbers: {config.option.benchmark_json}")
    for path, saved in (session.compared_mapping or {}).items():
        terminalreporter.section(f"against {path}")
        for line in report.compare({name: report.Measurement.of(b) for name, b in saved.items()}, current):
            write(line)
