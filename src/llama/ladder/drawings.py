"""What the ladder's page shows, drawn without a display: each function makes one svg element from numbers."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

INK = "#010203"
"""A colour that nothing else has: in a page it becomes that of the text, whether light or dark."""
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")


def svg(draw: Callable[[Any], None], height: float = 3.6) -> str:
    """What `draw(axes)` draws, as an element for a page: as wide as its place, and in the colour of the text."""
    colours = dict.fromkeys(INKED, INK)
    style: dict[Any, Any] = {**colours, "svg.hashsalt": "llama", "font.size": 10, "axes.spines.top": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :].replace(INK, "currentColor")


def _finish(axes: Any, legend: bool = True, **labels: Any) -> None:
    axes.set(**labels)
    axes.grid(alpha=0.25)
    if legend:
        axes.legend(frameon=False, fontsize=8, labelcolor="linecolor")


def curves(lines: Mapping[str, Sequence[float]], honest: Mapping[str, float]) -> str:
    """The training loss of each rung, each point the mean over a fiftieth of the steps.

    A cross at the end is what a rung is worth honestly, where that is something else.
    """

    def draw(axes: Any) -> None:
        for i, (name, values) in enumerate(lines.items()):
            colour = f"C{i}"
            parts = np.array_split(np.array(values), min(50, len(values)))
            ends = np.cumsum([len(part) for part in parts])
            axes.plot(ends, [part.mean() for part in parts], color=colour, linewidth=1.5, label=name)
            if name in honest:
                axes.plot(ends[-1], honest[name], "X", color=colour, markersize=8)
        _finish(axes, legend=False, xlabel="step", ylabel="loss of the training batch, nats per character")
        axes.figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9, labelcolor="linecolor")

    return svg(draw, height=5.2)


def on_each_other(lines: Mapping[str, Sequence[float]], title: str) -> str:
    """Two curves that should be one: the first wide and pale, the second thin and dark upon it."""

    def draw(axes: Any) -> None:
        styles = ({"color": "C1", "linewidth": 6, "alpha": 0.45}, {"color": "C0", "linewidth": 1})
        for (name, values), style in zip(lines.items(), styles, strict=True):
            axes.plot(range(1, len(values) + 1), values, label=name, **style)
        _finish(axes, title=title, xlabel="step", ylabel="loss of the training batch, nats per character")

    return svg(draw, height=4.0)


def parting(steps: Sequence[int], reported: Sequence[float], honest: Sequence[float]) -> str:
    """Two losses of one model: as it is reported, and from prefixes alone."""

    def draw(axes: Any) -> None:
        axes.plot(steps, honest, "o-", color="tab:red", markersize=3, label="from prefixes alone")
        axes.plot(steps, reported, "o-", color="tab:blue", markersize=3, label="as reported")
        _finish(axes, xlabel="step", ylabel="validation loss, nats per character")

    return svg(draw)


def attention_map(weights: np.ndarray, text: str, title: str) -> str:
    """Attention weights [query key], with the characters that stand there."""

    def draw(axes: Any) -> None:
        # What is exactly zero is left empty: it is not looked at all.
        seen = np.where(weights == 0, np.nan, weights)
        shown = axes.imshow(seen, cmap="viridis", vmin=0.0, interpolation="nearest")
        letters = [{"\n": "↵", " ": "␣"}.get(c, c) for c in text]
        axes.set_xticks(range(len(letters)), letters, fontsize=7)
        axes.set_yticks(range(len(letters)), letters, fontsize=7)
        axes.set(xlabel="is looked at (key)", ylabel="looks (query)", title=title)
        axes.figure.colorbar(shown, ax=axes)

    return svg(draw, height=4.4)


def circles(frequencies: np.ndarray, positions: int) -> str:
    """Where rope turns the pair (1, 0) of some frequencies, position by position."""

    def draw(axes: Any) -> None:
        chosen = np.linspace(0, len(frequencies) - 1, min(4, len(frequencies))).round().astype(int)
        for radius, i in enumerate(chosen, start=1):
            angles = np.arange(positions) * frequencies[i]
            axes.plot(radius * np.cos(angles), radius * np.sin(angles), "o-", markersize=3, linewidth=0.8, alpha=0.8)
            axes.annotate(f"pair {i}", (radius, 0), textcoords="offset points", xytext=(4, -10), fontsize=8)
        axes.set(aspect="equal", title="one pair each, turned from position to position")
        axes.set_axis_off()

    return svg(draw, height=4.4)


def turns(frequencies: np.ndarray, positions: int) -> str:
    """The cosine of each pair's angle at each position."""

    def draw(axes: Any) -> None:
        angles = np.arange(positions)[:, None] * frequencies
        shown = axes.imshow(np.cos(angles), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axes.set(xlabel="pair", ylabel="position", title="cosine of the angle")
        axes.figure.colorbar(shown, ax=axes)

    return svg(draw, height=4.4)


def by_layer(
    values: Mapping[str, Mapping[str, float]],
    title: str,
    percent: bool = False,
    rings: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """A number for each tensor: a row for each kind, a point for each layer, darker from the first to the last.

    `rings` are drawn around the points where they are the same numbers.
    """

    def draw(axes: Any) -> None:
        kinds = list(values)
        layers = max(len(row) for row in values.values())
        for y, kind in enumerate(kinds):
            for i, value in enumerate(values[kind].values()):
                colour = mpl.colormaps["viridis"](0.15 + 0.7 * i / max(1, layers - 1))
                axes.plot(100 * value if percent else value, y, "o", color=colour, markersize=6, alpha=0.85)
            for value in rings[kind].values() if rings else ():
                axes.plot(value, y, "o", color=INK, fillstyle="none", markersize=10, markeredgewidth=0.8)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.invert_yaxis()
        if percent:
            axes.set_xlim(left=0)
        else:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        _finish(axes, legend=False, title=title, xlabel="percent" if percent else "")

    return svg(draw, height=4.0)
