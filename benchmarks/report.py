"""What is shown of a run: a table and a chart per layer, and what got slower since another run."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

LOOPS = "naive"
"""What the measurements of all layers beside their loops are of; the layer stands in the place of the pass."""
REFERENCE = "fused"
"""The column that the ratios of a table are to."""
FITTED = 3
"""Sizes, the largest ones, that the growth is fitted to: of a toy, most of the time is the call itself."""
SIGMAS = 4
"""Of some thousand numbers, which spread more widely than a normal distribution, none is to be slower by chance."""
LEAST_NOISE = 0.02
"""Two calls of the same function, measured one after the other, differ by as much, whatever their own rounds say."""


@dataclass(frozen=True)
class Measurement:
    """One number of a run as it is saved. Times in seconds, `amount` in `unit`, `limit` in `unit` per second."""

    layer: str
    column: str
    dtype: str
    passes: str
    along: str
    size: int
    reference: bool
    amount: float
    unit: str
    tokens: int
    limit: float
    peak: int
    median: float
    iqr: float

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Measurement":
        """From an entry of pytest-benchmark's JSON."""
        known = saved["extra_info"] | saved["stats"]
        return cls(**{field.name: known[field.name] for field in fields(cls)})

    @property
    def row(self) -> tuple[int, str, str]:
        return self.size, self.dtype, self.passes

    @property
    def curve(self) -> tuple[str, str, str]:
        return self.column, self.dtype, self.passes

    @property
    def each(self) -> float:
        """The time of a token where tokens count, else of the call."""
        return self.median / (self.tokens or 1)

    @property
    def noise(self) -> float:
        """The spread of its rounds, as a standard deviation of the logarithm: an IQR is 1.35 of them."""
        return self.iqr / 1.35 / self.median


def tables(run: Sequence[Measurement]) -> Iterator[tuple[str, list[str]]]:
    """For each layer its name and the lines of its tables."""
    for layer, of in _by_layer(run).items():
        yield layer, [*_aligned(_times(of)), "", *_aligned(_summary(of))]


def _times(of: Sequence[Measurement]) -> Iterator[list[str]]:
    columns = list(dict.fromkeys(m.column for m in of))
    yield [of[0].along, "dtype", "pass", *columns]
    rows: dict[tuple[int, str, str], dict[str, Measurement]] = defaultdict(dict)
    for m in of:
        rows[m.row][m.column] = m
    for (size, dtype, passes), by_column in rows.items():
        base = by_column.get(REFERENCE)
        cells = [_cell(by_column[c], base) if c in by_column else "" for c in columns]
        yield [f"{size:,}", dtype, passes, *cells]


def _cell(m: Measurement, base: Measurement | None) -> str:
    rate = f" {m.tokens / m.median:,.0f} tokens/s" if m.tokens else ""
    ratio = f" {m.median / base.median:6.2f}x" if base else ""
    return _time(m.median) + rate + ratio


def _summary(of: Sequence[Measurement]) -> Iterator[list[str]]:
    """How each column grows, and what it reaches and takes at the largest size.

    It may reach more than the machine's copy where what it moves stays in a cache: what is copied does not.
    """
    limit = "matrix product" if of[0].unit == "flop" else "copy"
    share = f"of this machine's {limit}"
    yield ["column", "dtype", "pass", "grows as", "largest", "reaches", share, "peak extra memory"]
    for (column, dtype, passes), curve in _curves(of).items():
        last, power = curve[-1], exponent(curve)
        rate = last.amount / last.median
        yield [
            column,
            dtype,
            passes,
            "" if power is None else f"{last.along}^{power + 0.0:.2f}",
            f"{last.size:,}",
            f"{rate / 1e9:.3g} {'GFLOP/s' if last.unit == 'flop' else 'GB/s'}" if rate else "",
            f"{rate / last.limit:.0%}" if rate and last.limit else "",
            f"{last.peak / 2**20:,.1f} MB" if last.peak else "",
        ]


def exponent(curve: Sequence[Measurement]) -> float | None:
    """p in time = c · size^p, by least squares on the logarithms; None for fewer than two sizes.

    The time is that of a token, where tokens count.
    """
    largest = sorted(curve, key=lambda m: m.size)[-FITTED:]
    if len({m.size for m in largest}) < 2:
        return None
    return statistics.linear_regression([math.log(m.size) for m in largest], [math.log(m.each) for m in largest]).slope


def standing(run: Sequence[Measurement]) -> Iterator[str]:
    """How `fused` stands beside its peers: the geometric mean by layer, and where it is slower by more than noise."""
    rows: dict[tuple[str, int, str, str], list[Measurement]] = defaultdict(list)
    for m in run:
        rows[m.layer, *m.row].append(m)
    times: dict[str, list[float]] = defaultdict(list)
    slower = []
    for (layer, *_), cells in rows.items():
        for base, peer in itertools.product(cells, cells):
            if base.column == REFERENCE and peer.reference:
                ratio = math.log(peer.median / base.median)
                times[layer].append(ratio)
                if -ratio > SIGMAS * math.hypot(base.noise, peer.noise, LEAST_NOISE):
                    slower.append((ratio, base, peer))
    if not times:
        return
    for layer, logs in times.items():
        yield f"{layer}: {math.exp(statistics.mean(logs)):.2f}x as fast, over {len(logs)} numbers"
    everything = [x for logs in times.values() for x in logs]
    yield f"all: {math.exp(statistics.mean(everything)):.2f}x as fast, over {len(everything)} numbers"
    for ratio, base, peer in sorted(slower, key=lambda s: s[0]):
        what = f"{base.layer} {base.along}={base.size} {base.dtype} {base.passes}"
        yield f"SLOWER  {math.exp(-ratio):.2f}x  {what}: {_time(base.median)}, {peer.column} {_time(peer.median)}"


def beside(run: Sequence[Measurement], column: str) -> Iterator[str]:
    """How many times as fast as `fused` and as the best peer of each size that column is, and where it wins and loses.

    It wins where it is faster than both by more than the noise, and loses where it is slower than one of them by more.
    """
    rows: dict[tuple[str, int, str, str], dict[str, Measurement]] = defaultdict(dict)
    for m in run:
        if m.layer != LOOPS:
            rows[m.layer, *m.row][m.column] = m
    groups: dict[tuple[str, str, str], list[tuple[Measurement, list[Measurement]]]] = defaultdict(list)
    for cells in rows.values():
        if own := cells.get(column):
            peers = [m for m in cells.values() if m.reference]
            best = [min(peers, key=lambda m: m.median)] if peers else []
            groups[own.layer, own.dtype, own.passes].append(
                (own, [m for m in cells.values() if m.column == REFERENCE] + best)
            )
    table = [["layer", "dtype", "pass", "as fast as fused", "as the best peer", "faster at", "slower at"]]
    for (layer, dtype, passes), pairs in groups.items():
        logs = [
            [math.log(m.median / own.median) for own, others in pairs for m in others if m.reference == reference]
            for reference in (False, True)
        ]
        faster = [own for own, others in pairs if others and all(_beyond_noise(own, m) > 0 for m in others)]
        slower = [own for own, others in pairs if any(_beyond_noise(own, m) < 0 for m in others)]
        means = [f"{math.exp(statistics.mean(ratios)):.2f}x" if ratios else "" for ratios in logs]
        places = [f"{of[0].along}={', '.join(f'{m.size}' for m in of)}" if of else "" for of in (faster, slower)]
        table.append([layer, dtype, passes, *means, *places])
    if len(table) > 1:
        yield from _aligned(table)


def _beyond_noise(own: Measurement, other: Measurement) -> int:
    """1 where it is faster than the other by more than the noise, -1 where it is slower, else 0."""
    ratio = math.log(other.median / own.median)
    return (ratio > 0) - (ratio < 0) if abs(ratio) > SIGMAS * math.hypot(own.noise, other.noise, LEAST_NOISE) else 0


def over_naive(run: Sequence[Measurement]) -> Iterator[str]:
    """How many times as fast as the loops `vectorized` is, by layer."""
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for m in run:
        if m.layer == LOOPS:
            times[m.passes][m.column] = m.median
    rows = [
        [layer, _time(of["naive"]), _time(of["vectorized"]), f"{of['naive'] / of['vectorized']:,.0f}x"]
        for layer, of in times.items()
        if len(of) == 2
    ]
    if rows:
        yield from _aligned([["layer", "naive", "vectorized", "as fast"], *rows])


def compare(before: Mapping[str, Measurement], after: Mapping[str, Measurement]) -> Iterator[str]:
    """What got slower by more than the noise, the worst first.

    Between two runs the machine itself gets slower or faster, and not alike for all kinds of work. The peers, whose
    code is the same in both runs, are measured beside ours and show by how much: the median of their ratios in a
    layer (over all layers where it has no peer) is its drift, which is divided out. How far their ratios spread
    around it is the noise between runs; to it comes the spread of the rounds in either run. What is slower by more
    than 4 standard deviations of these together is named. A peer is never named: it only measures.
    """
    both = [(before[name], m) for name, m in after.items() if name in before]
    if not both:
        yield "no number is in both runs"
        return
    logs = defaultdict(list)
    for old, new in both:
        if new.reference:
            logs[new.layer].append(math.log(new.median / old.median))
    everywhere = statistics.median([x for layer in logs.values() for x in layer] or [0.0])
    drift = {layer: statistics.median(ratios) for layer, ratios in logs.items()}
    rest = [abs(x - drift[layer]) for layer, ratios in logs.items() for x in ratios]
    between = 1.48 * statistics.median(rest or [0.0])  # the median deviation is 1 / 1.48 of the standard deviation

    slower = []
    for old, new in both:
        change = math.log(new.median / old.median) - drift.get(new.layer, everywhere)
        noise = math.hypot(between, old.noise, new.noise)
        if change > SIGMAS * noise and not new.reference:
            slower.append((change, noise, old, new))
    yield (
        f"{len(both)} numbers in both runs; the peers take {math.exp(everywhere):.2f}x the time of then, "
        f"and single ones differ from that by {math.expm1(between):.0%}"
    )
    for change, noise, old, new in sorted(slower, key=lambda s: -s[0]):
        what = f"{new.layer} {new.along}={new.size} {new.dtype} {new.passes} {new.column}"
        times = f"{_time(old.median)} -> {_time(new.median)}"
        yield f"SLOWER  {math.exp(change):.2f}x (noise {math.expm1(SIGMAS * noise):.0%})  {what}: {times}"
    if not slower:
        yield "nothing got slower by more than the noise"


def charts(run: Sequence[Measurement], folder: Path) -> Iterator[Path]:
    """For each layer a picture of time against size: a panel per dtype, a line per column and pass."""
    from matplotlib.figure import Figure

    for layer, of in _by_layer(run).items():
        dtypes = list(dict.fromkeys(m.dtype for m in of))
        columns = list(dict.fromkeys(m.column for m in of))
        figure = Figure(figsize=(1.5 + 5 * len(dtypes), 4.8), layout="constrained")
        what = "token" if of[0].tokens else "call"
        figure.suptitle(f"{layer}: what a {what} takes")
        panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
        for axes, dtype in zip(panels, dtypes, strict=True):
            for curve in _curves(m for m in of if m.dtype == dtype).values():
                forward = curve[0].passes == "forward"
                axes.loglog(
                    [m.size for m in curve],
                    [m.each for m in curve],
                    "o-" if forward else "s--",
                    color=f"C{columns.index(curve[0].column)}",
                    label=curve[0].column + ("" if forward else ", forward+backward"),
                    markersize=4,
                )
            sizes = sorted({m.size for m in of})
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.minorticks_off()
            axes.set(title=dtype, xlabel=of[0].along)
            axes.yaxis.set_major_formatter(lambda seconds, _: _time(seconds))
            axes.grid(alpha=0.3)
        panels[0].set_ylabel(f"median time of a {what}")
        # From one power of ten to another, or there might be none on the axis to read a time from.
        powers = [math.log10(m.each) for m in of]
        panels[0].set_ylim(10 ** math.floor(min(powers)), 10 ** (math.floor(max(powers)) + 1))
        # Not every column is in every panel.
        named = {line.get_label(): line for axes in panels for line in axes.get_lines()}
        figure.legend(handles=named.values(), loc="outside right center", fontsize=8)
        path = folder / f"{layer.replace(' ', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        yield path


def _curves(of: Iterable[Measurement]) -> dict[tuple[str, str, str], list[Measurement]]:
    """By column, dtype and pass, each from the smallest size to the largest."""
    curves: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for m in sorted(of, key=lambda m: m.size):
        curves[m.curve].append(m)
    return curves


def _by_layer(run: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    by_layer: dict[str, list[Measurement]] = defaultdict(list)
    for m in run:
        if m.layer != LOOPS:
            by_layer[m.layer].append(m)
    return by_layer


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _aligned(rows: Iterable[list[str]]) -> list[str]:
    """As lines in which every column is as wide as its widest word: words to the left, numbers to the right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            word.ljust(width) if title in ("column", "dtype", "pass", "layer") else word.rjust(width)
            for word, width, title in zip(row, widths, table[0], strict=True)
        ).rstrip()
        for row in table
    ]
