"""`pytest --benchmark`: what it shows, what it leaves, and what it says of another run."""

import importlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import bench_whole_model, refusal, report
from benchmarks.cases import BOTH, FORWARD, measure
from benchmarks.machine import COPIED, Machine, PeakMemory
from benchmarks.model.bench_softmax import bench_softmax
from benchmarks.refusal import Nonsense
from benchmarks.report import Measurement
from llama import implementation
from llama.implementation import Implementation
from llama.layers import CHAPTER
from tests.cases import calls
from tests.judge.assertions import assert_close
from tests.session.running.nested_runs import run_suite

ROOT = Path(__file__).parents[3]
MINE = "def softmax(x):\n    return x.softmax(-1)\n"
SLOW = "def softmax(x):\n    for _ in range(300):\n        y = x.softmax(-1)\n    return y\n"
SHORT = ("--benchmark-max-time=0.0001", "--benchmark-min-rounds=1")
SMALLEST = (
    *("--benchmark", "benchmarks/model/bench_softmax.py", "-k", "n:64-float32-forward-", "--impl", "{folder}/mine.py"),
    *("--benchmark-min-rounds=15", "--benchmark-storage={folder}/saved", "--benchmark-json={folder}/run.json"),
)
ONE = Measurement(
    layer="softmax",
    column="fused",
    dtype="float32",
    passes="forward",
    along="n",
    size=64,
    reference=False,
    amount=1000.0,
    unit="byte",
    tokens=0,
    limit=1e9,
    peak=0,
    median=1e-3,
    iqr=1e-5,
)
PEER = replace(ONE, column="torch.nn", reference=True)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself, as it imports its compiler
def test_a_token_of_the_small_model_is_decoded_in_every_column():
    cells = bench_whole_model.bench_model_decoding_small.cells([implementation.load("fused")])
    first = [c for c in cells if (c.size, c.dtype) == (bench_whole_model.CACHED[0], "float32")]
    logits = [call(argument()).flatten() for call, argument in (cell.prepare() for cell in first)]
    assert [c.column for c in first] == ["fused", "transformers", "programs", "8 bits", "4 bits"]
    assert_close(logits[0], logits[1])
    assert_close(logits[2], logits[1])
    errors = [float((few - logits[1]).abs().mean()) for few in logits[2:]]
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", calls.differentiable())
def test_the_peers_compute_what_the_layer_does_down_to_the_gradients(name):
    bench = getattr(importlib.import_module(f"benchmarks.{CHAPTER[name]}.bench_{name}"), f"bench_{name}")
    cells = [c for c in bench.cells([implementation.load("fused")]) if (c.dtype, c.passes) == ("float32", BOTH)]
    expected, *others = [c.prepare()() for c in cells if c.size == min(c.size for c in cells)]
    assert others
    for gradients in others:
        for ours, theirs in zip(expected, gradients, strict=True):
            assert_close(theirs, ours)


@pytest.mark.parametrize("name", calls.gradients())
def test_a_gradient_by_hand_is_set_beside_autograd(name):
    bench = getattr(importlib.import_module(f"benchmarks.{CHAPTER[name]}.bench_{name}"), f"bench_{name}")
    cells = bench.cells([implementation.load("fused")])
    assert {"fused", "autograd"} <= {c.column for c in cells}


@pytest.mark.suite({}, "--collect-only", "-q", "benchmarks", "tests/unit/model/test_softmax.py")
def test_without_the_option_no_benchmark_is_collected_even_from_its_folder(run):
    assert "tests/unit/model/test_softmax.py::" in run.stdout
    assert "bench_" not in run.stdout


@pytest.mark.suite(
    {"mine.py": MINE},
    *("--benchmark", "-k", "softmax", "--impl", "{folder}/mine.py", *SHORT, "--benchmark-json={folder}/out/all.json"),
    OMP_NUM_THREADS="1",
)
def test_a_layer_alone_has_a_table_with_all_columns_a_chart_and_its_numbers(run):
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    title = next(line.split() for line in lines if line.split()[:3] == ["n", "dtype", "pass"])
    assert title == ["n", "dtype", "pass", "naive", "vectorized", "fused", "mine", "torch.nn"]
    left = dict(line.split(": ", 1) for line in lines if line.startswith(("chart: ", "all numbers: ")))
    assert Path(left["chart"]).read_bytes().startswith(b"\x89PNG")
    cells = [b["extra_info"] for b in json.loads(Path(left["all numbers"]).read_text())["benchmarks"]]
    assert {cell["layer"] for cell in cells} == {"softmax"}
    assert {cell["dtype"] for cell in cells} == {"float32", "bfloat16"}
    assert {cell["passes"] for cell in cells if cell["column"] == "mine"} == {"forward", "forward+backward"}
    assert len({cell["size"] for cell in cells}) >= 4
    largest = [cell for cell in cells if cell["size"] == max(cell["size"] for cell in cells)]
    assert all(cell["peak"] >= cell["amount"] / 5 for cell in largest)  # of five passes over memory, one writes anew


@pytest.mark.suite({"mine.py": MINE}, *SMALLEST, "--benchmark-save=before", OMP_NUM_THREADS="1")
def test_what_got_slower_since_a_saved_run_is_named(run):
    assert run.returncode == 0, run.stdout
    folder = Path(run.args[run.args.index("--impl") + 1]).parent
    again = run_suite(folder, {"mine.py": SLOW}, *SMALLEST, "--benchmark-compare", OMP_NUM_THREADS="1")
    assert again.returncode == 0, again.stdout
    assert "5 numbers in both runs" in again.stdout
    named = [line for line in again.stdout.splitlines() if line.startswith("SLOWER")]
    assert any("softmax n=64 float32 forward mine:" in line for line in named), again.stdout


def test_fused_is_set_beside_its_peers_and_where_it_is_slower_is_named():
    twice_as_fast, slower = replace(PEER, median=2 * ONE.median), replace(ONE, size=128, median=4e-3)
    beside = replace(PEER, size=128, median=2e-3)
    assert list(report.standing([ONE, twice_as_fast, slower, beside])) == [
        "softmax: 1.00x as fast, over 2 numbers",
        "all: 1.00x as fast, over 2 numbers",
        "SLOWER  2.00x  softmax n=128 float32 forward: 4 ms, torch.nn 2 ms",
    ]
    assert list(report.standing([ONE, replace(PEER, median=0.99 * ONE.median)]))[2:] == []


def test_vectorized_is_set_beside_the_loops_layer_by_layer():
    vectorized = replace(ONE, layer=report.LOOPS, passes="rope", column="vectorized")
    loops = replace(vectorized, column="naive", median=0.25)
    title, rope = report.over_naive([ONE, vectorized, loops])
    assert title.split() == ["layer", "naive", "vectorized", "as", "fast"]
    assert rope.split() == ["rope", "250", "ms", "1", "ms", "250x"]
    assert list(report.over_naive([ONE, loops])) == []
    assert [layer for layer, _ in report.tables([ONE, vectorized, loops])] == ["softmax"]


def test_a_chart_names_every_column_also_one_that_a_dtype_lacks(monkeypatch, tmp_path):
    named = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, *_, **__: named.extend(text.get_text() for text in figure.legends[0].get_texts()),
    )
    both = [ONE, PEER, replace(ONE, dtype="bfloat16"), replace(ONE, dtype="bfloat16", column="compiled")]
    assert [path.name for path in report.charts(both, tmp_path)] == ["softmax.png"]
    assert named == ["fused", "torch.nn", "compiled"]


def test_the_drift_of_the_machine_is_divided_out():
    before = {"ours": ONE, "theirs": PEER}
    twice = {name: replace(m, median=2 * m.median) for name, m in before.items()}
    assert list(report.compare(before, twice))[1:] == ["nothing got slower by more than the noise"]
    alone = twice | {"theirs": PEER}
    (named,) = list(report.compare(before, alone))[1:]
    assert named.startswith("SLOWER  2.00x")
    assert named.endswith("softmax n=64 float32 forward fused: 1 ms -> 2 ms")


def test_what_differs_no_more_than_the_peers_or_the_rounds_do_is_noise():
    slower = {"ours": replace(ONE, median=1.2 * ONE.median)}
    assert any(line.startswith("SLOWER") for line in report.compare({"ours": ONE}, slower))
    restless = {"ours": replace(slower["ours"], iqr=ONE.median / 3)}
    assert not any(line.startswith("SLOWER") for line in report.compare({"ours": ONE}, restless))
    peers = {str(i): PEER for i in range(4)}
    spread = {name: replace(PEER, median=PEER.median * (0.8, 0.9, 1.1, 1.25)[int(name)]) for name in peers}
    lines = report.compare({"ours": ONE} | peers, slower | spread)
    assert not any(line.startswith("SLOWER") for line in lines)


def test_the_growth_is_the_exponent_of_a_power_law():
    curve = [replace(ONE, size=size, median=1e-6 * size**2) for size in (4, 16, 64, 256)]
    assert math.isclose(report.exponent(curve), 2)
    assert report.exponent(curve[:1]) is None
    ((layer, lines),) = report.tables(curve)
    assert layer == "softmax"
    assert "n^2.00" in lines[-1]


def test_peak_memory_is_what_is_held_at_once():
    size = 2**20
    with PeakMemory() as one_after_another:
        for _ in range(3):
            torch.empty(size, dtype=torch.uint8)
    with PeakMemory() as at_once:
        [torch.empty(size, dtype=torch.uint8) for _ in range(3)]
    assert one_after_another.bytes == size
    assert at_once.bytes == 3 * size


class Stopwatch:
    """In the place of pytest-benchmark: one call, and how long it is said to have taken."""

    def __init__(self, seconds):
        self.stats = SimpleNamespace(stats=SimpleNamespace(median=seconds))
        self.has_error, self.extra_info = False, {}

    def __call__(self, call):
        return call()


MACHINE = Machine({"float32": 1e11}, copy=1e10)
AN_HOUR = 3600.0


def by_identity():
    kept = {}
    return lambda x: kept.setdefault(id(x), x.softmax(-1).detach())


def by_version():
    """Notices that contents were changed, and so returns the right result."""
    kept = {}

    def softmax(x):
        if kept.get("of") != x._version:
            kept.update(of=x._version, y=torch.stack([x.softmax(-1) for _ in range(500)])[0])
        return kept["y"]

    return softmax


def measured(softmax, seconds, passes=FORWARD):
    watch = Stopwatch(seconds)
    cells = bench_softmax.cells([Implementation("mine", {"softmax": softmax})])
    cell = next(c for c in cells if (c.column, c.dtype, c.passes) == ("mine", "float32", passes))
    try:
        measure(cell, watch, MACHINE)
    except Nonsense as nonsense:
        assert watch.has_error  # which keeps the number out of tables and files
        return str(nonsense)
    return watch.extra_info["layer"]


@pytest.mark.parametrize("passes", [FORWARD, BOTH])
def test_an_honest_layer_is_measured(passes):
    assert measured(lambda x: x.softmax(-1), AN_HOUR, passes) == "softmax"


def test_a_layer_that_is_wrong_on_these_inputs_is_told_so_before_it_is_timed():
    sentence = measured(lambda x: (1.01 * x).softmax(-1), AN_HOUR)
    assert sentence.startswith("softmax (mine) [n=64 float32 forward]: the layer is wrong on these inputs")
    assert sentence.endswith("pytest --impl with -k softmax says what is wrong")


def test_what_an_author_does_not_claim_is_not_measured():
    mine = Implementation("mine", {"softmax": lambda x: x.softmax(-1).detach()})
    mine.claim("float32, forward")
    cells = [cell for cell in bench_softmax.cells([mine]) if cell.column == "mine" and cell.size == 64]
    calls = {(cell.dtype, cell.passes): cell.prepare for cell in cells}
    with torch.no_grad():
        assert calls["float32", FORWARD]()().shape[-1] == 64
    with torch.no_grad(), pytest.raises(pytest.skip.Exception, match="mine does not claim bfloat16"):
        calls["bfloat16", FORWARD]()
    with pytest.raises(pytest.skip.Exception, match="mine does not claim gradients"):
        calls["float32", BOTH]()


def test_an_authors_layer_is_set_beside_fused_and_the_best_peer_with_the_sizes_where_it_wins_and_loses():
    run = []
    for size, mine in ((64, 0.5e-3), (128, 1e-3), (256, 4e-3)):
        other = replace(PEER, column="transformers", median=5e-3)
        run += [replace(m, size=size) for m in (ONE, replace(PEER, median=2e-3), other)]
        run.append(replace(ONE, column="mine", size=size, median=mine))
    head, row = report.beside(run, "mine")
    # Over fused 2, 1 and 1/4, whose geometric mean is 0.79; over the best peer twice that.
    assert [word.strip() for word in re.split(r" {2,}", row)] == [
        *("softmax", "float32", "forward", "0.79x", "1.59x", "n=64", "n=256")
    ]
    assert re.split(r" {2,}", head)[-4:] == ["as fast as fused", "as the best peer", "faster at", "slower at"]
    assert list(report.beside(run, "nobody")) == []


def test_a_layer_that_returns_the_result_for_old_contents_is_refused():
    sentence = measured(by_identity(), AN_HOUR)
    assert sentence.startswith("softmax (mine) [n=64 float32 forward]: the timed calls returned a wrong result")


def test_a_layer_that_is_fast_only_for_contents_it_has_seen_is_refused():
    sentence = measured(by_version(), 1e-6)
    assert sentence.startswith("softmax (mine) [n=64 float32 forward]: a call takes ")
    assert sentence.endswith("it was not the layer that was timed, but what it kept")


def test_what_no_machine_can_do_is_refused_unless_it_may_stay_in_a_cache(monkeypatch):
    monkeypatch.setattr("benchmarks.machine.measured", lambda: MACHINE)
    twice = COPIED / MACHINE.copy / 2
    refusal.check_rate("small", COPIED / 4, "byte", "float32", twice / 4, MACHINE)
    with pytest.raises(Nonsense, match="large: .* would be 200% of this machine's own copy, and more than 150%"):
        refusal.check_rate("large", COPIED, "byte", "float32", twice, MACHINE)
    with pytest.raises(Nonsense, match="small: .* would be 177,500% of this machine's own copy"):
        refusal.check_rate("small", COPIED / 4, "byte", "float32", COPIED / 4 / MACHINE.copy / 1775, MACHINE)
    with pytest.raises(Nonsense, match="product: .* would be 200% of this machine's own matrix product"):
        refusal.check_rate("product", 1e6, "flop", "float32", 5e-6, MACHINE)


def test_a_machine_that_was_busy_when_it_was_measured_is_measured_again(monkeypatch):
    idle = Machine({"float32": 4e11}, copy=4e10)
    monkeypatch.setattr("benchmarks.machine.measured", lambda: idle)
    refusal.check_rate("product", 1e6, "flop", "float32", 5e-6, MACHINE)
    with pytest.raises(Nonsense, match="would be 200%"):
        refusal.check_rate("product", 1e6, "flop", "float32", 1.25e-6, MACHINE)


def test_wrong_lists_and_bytes_are_refused_as_wrong_tensors_are():
    refusal.check_right("bpe_merge (mine)", "bpe_merge", [1, 2], [1, 2])
    with pytest.raises(Nonsense, match="the layer is wrong on these inputs"):
        refusal.check_right("bpe_merge (mine)", "bpe_merge", [1, 3], [1, 2])
    with pytest.raises(Nonsense, match="the timed calls returned a wrong result"):
        refusal.check_result("bpe_decode (mine)", b"ab", b"abc")
