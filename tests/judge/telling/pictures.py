"""What a failing layer was given, what was expected, what came, and the difference, as a picture.

A picture is kept until the test that made it passes.
"""

import functools
import re
import textwrap
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llama.implementation import tensors
from tests.judge.items import subject_of
from tests.judge.subject import Call, Subject

FAILURES = Path("out") / "failures"
FEW = 64
"""Up to so many cells have their numbers written into them."""
WIDEST = 128
"""So many rows and columns are shown at most."""

HUGE = 1e300
"""What is larger has the colour of this: a scale cannot be wider than the largest float."""

# What draws one panel.
Panel = Callable[[Any], None]


def numbers(values: Any) -> np.ndarray:
    return (values.detach().cpu().double() if isinstance(values, Tensor) else torch.as_tensor(values).double()).numpy()


def picture_of(item: pytest.Function, layer: str) -> Path:
    """Where the picture of this test's failure is."""
    return FAILURES / (re.sub(r"\W+", "-", f"{layer} {item.name}").strip("-") + ".png")


_TO_DRAW: dict[Path, Callable[[], Path]] = {}


def draw_later(path: Path, title: str, *result: Any) -> Path:
    """A comparison that is drawn when the run has ended: it takes half a second, for which the answer need not wait."""
    _TO_DRAW[path] = functools.partial(save_comparison, path, title, *result)
    return path


class Drawings:
    """Plugin: it draws the failures of a run at its end; a test that passes takes away the picture of its last one."""

    def pytest_unconfigure(self) -> None:
        for draw in _TO_DRAW.values():
            draw()
        _TO_DRAW.clear()

    def __init__(self) -> None:
        self.left = set(FAILURES.glob("*.png"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo) -> Generator[None, Any, Any]:
        report = yield
        if self.left and call.when == "call" and report.passed and isinstance(subject := subject_of(item), Subject):
            path = picture_of(item, subject.layer)
            if path in self.left:
                path.unlink(missing_ok=True)
        return report


def save_comparison(
    path: Path, title: str, expected: Tensor, actual: Tensor, axes: Sequence[str], call: Call | None = None
) -> Path:
    """Input, expected, yours and the difference, side by side; what is a single long row, one below the other."""
    panels, through = comparison(expected, actual, axes, call)
    a_row = max(expected.shape) == expected.numel() > 8
    return save(path, panels, title + (f" ({through})" if through else ""), stacked=a_row)


def comparison(
    expected: Tensor, actual: Tensor, axes: Sequence[str], call: Call | None = None
) -> tuple[list[Panel], str]:
    """The panels, of the last two axes of any size around the worst element, and where they lie along the others."""
    e, a = (np.atleast_2d(numbers(t)) for t in (expected, actual))
    axes = ["", *axes][-max(2, len(axes)) :]
    order = _showing_last(e)
    axes = [axes[axis] for axis in order]
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(e == a, 0.0, a - e)  # equal infinities do not differ
    worst = np.unravel_index(int(np.nan_to_num(np.abs(difference), nan=np.inf).argmax()), e.shape)
    at = [int(worst[axis]) for axis in order]
    through = ", ".join(f"{name} {i}" for name, i in zip(axes, at[:-2], strict=False))
    window = _window([e.shape[axis] for axis in order[-2:]], at[-2:])
    e, a, difference = (t.transpose(order)[tuple(at[:-2])][window] for t in (e, a, difference))
    finite = np.concatenate([e[np.isfinite(e)], a[np.isfinite(a)]]).clip(-HUGE, HUGE)
    shared: dict[str, Any] = {"vmin": finite.min(), "vmax": finite.max()} if finite.size else {}
    labels: dict[str, Any] = {"xlabel": axes[-1], "ylabel": axes[-2], "window": window}
    panels: list[Panel] = [
        lambda panel: draw_matrix(panel, e, title="expected", **labels, **shared),
        lambda panel: draw_matrix(panel, a, title="yours", **labels, **shared),
        lambda panel: draw_matrix(panel, difference, True, ONE_SIDED, title="yours - expected", **labels),
    ]
    if given := _input(call):
        panels.insert(0, _input_panel(*given, worst, expected.shape))
    return panels, through


Window = tuple[slice, ...]


def _window(shape: Sequence[int], at: Sequence[int]) -> Window:
    """As much around this element as can be told apart in a panel."""
    firsts = [max(0, min(i - WIDEST // 2, size - WIDEST)) for size, i in zip(shape, at, strict=True)]
    return tuple(slice(first, min(size, first + WIDEST)) for size, first in zip(shape, firsts, strict=True))


def _showing_last(values: np.ndarray) -> list[int]:
    """The axes in an order in which those of size one, which have nothing to show, come first."""
    return sorted(range(values.ndim), key=lambda axis: values.shape[axis] > 1)


def _input(call: Call | None) -> tuple[str, Tensor] | None:
    """The first float tensor that the layer was called with, as it was before the call; else the first tensor."""
    named = call.named(call.given) if call else []
    given = [(name, t) for name, value in named if not isinstance(value, Mapping) for t in tensors(value) if t.numel()]
    return next((pair for pair in given if pair[1].is_floating_point()), given[0] if given else None)


def _input_panel(name: str, given: Tensor, worst: Sequence[Any], shape: torch.Size) -> Panel:
    """Two axes of the input, at the place of the worst element where it has the shape of the output."""
    values = np.atleast_2d(numbers(given))
    order = _showing_last(values)
    at = [int(worst[axis]) if given.shape == shape else 0 for axis in order]
    window = _window([values.shape[axis] for axis in order[-2:]], at[-2:])
    shown = [str(i) for axis, i in zip(order[:-2], at, strict=False) if values.shape[axis] > 1]
    title = f"input: {name}" + (f"[{', '.join(shown)}]" if shown else "")
    return lambda panel: draw_matrix(panel, values.transpose(order)[tuple(at[:-2])][window], title=title, window=window)


# What is not finite, by the marker that stands for it.
SPECIAL = {"x": ("× NaN", np.isnan), "^": ("▲ ∞", np.isposinf), "v": ("▼ -∞", np.isneginf)}
ONE_SIDED = {"x": ("× infinity or NaN in one of the two", lambda values: ~np.isfinite(values))}


def draw_matrix(
    axes: Any,
    values: np.ndarray,
    signed: bool = False,
    special: Any = SPECIAL,
    window: Window = (slice(0), slice(0)),
    vmin: Any = None,
    vmax: Any = None,
    **labels: Any,
) -> None:
    """Viridis, or, for what has a sign, red and blue with white for zero; what is not finite is marked.

    `window` says of which rows and columns of something larger these are the values.
    """
    import matplotlib as mpl

    shown = np.where(np.isfinite(values), values, np.nan).clip(-HUGE, HUGE)
    if signed:
        limit = float(np.nanmax(np.abs(shown), initial=0.0)) or 1.0
        vmin, vmax = -limit, limit
    colours = mpl.colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="0.75")
    image = axes.imshow(shown, cmap=colours, aspect="auto", interpolation="nearest", vmin=vmin, vmax=vmax)
    for axis, size, part in zip((axes.yaxis, axes.xaxis), values.shape, window, strict=True):
        first = part.start or 0
        digits = len(str(first + size))
        ticks = range(0, size, max(1, size // {1: 8, 2: 8, 3: 5}.get(digits, 3)))
        axis.set_ticks(ticks, [str(first + tick) for tick in ticks])
    axes.set(**labels)
    axes.figure.colorbar(image, ax=axes)
    if values.size <= FEW:
        _write_numbers(axes, image, values)
    _mark(axes, values, special)


def _write_numbers(axes: Any, image: Any, values: np.ndarray) -> None:
    digits = 3 if values.shape[1] <= 6 else 2
    written = {at: _short(value, digits) for at, value in np.ndenumerate(values) if np.isfinite(value)}
    size, turned = _size_of_text(axes, values.shape, max(map(len, written.values()), default=1))
    for at, number in written.items():
        red, green, blue, _ = image.cmap(image.norm(values[at]))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        place = {"ha": "center", "va": "center", "rotation": 90 if turned else 0}
        axes.text(at[1], at[0], number, color=ink, fontsize=size, **place)


def _size_of_text(axes: Any, shape: Sequence[int], letters: int) -> tuple[float, bool]:
    """How large so many letters fit into a cell, and whether they do so from bottom to top."""
    width, height = _cell(axes, shape)
    level, upright = (min(along / 0.7 / letters, across / 1.3) for along, across in ((width, height), (height, width)))
    return min(9.0, max(level, upright)), level < min(4.5, upright)


def _cell(axes: Any, shape: Sequence[int]) -> tuple[float, float]:
    """Its width and height in points. The layout, which is made later, leaves the axes about as large as they are."""
    place, (rows, columns) = axes.get_position(), shape
    width, height = 72 * axes.figure.get_size_inches()
    return place.width * width / columns, place.height * height / rows


def _short(value: float, digits: int) -> str:
    return f"{value:.0f}" if 100 <= abs(value) < 100_000 else f"{value + 0.0:.{digits}g}"  # no -0


def _mark(axes: Any, values: np.ndarray, special: Any) -> None:
    """A marker, as large as its cell allows, on each cell that has no number; what they mean stands below."""
    size = max(2.0, min(9.0, 0.6 * min(_cell(axes, values.shape))))
    for marker, (meaning, of) in special.items():
        if (cells := np.argwhere(of(values))).size:
            axes.plot(cells[:, 1], cells[:, 0], marker, color="black", markersize=size)
            axes.set_xlabel(f"{axes.get_xlabel()}\n{meaning}")


def save(path: Path, panels: Sequence[Panel], title: str = "", stacked: bool = False) -> Path:
    from matplotlib.figure import Figure  # it costs a second, which a green run need not spend
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = (12.0, 0.6 + 1.6 * len(panels)) if stacked else (1 + 3.4 * max(2, len(panels)), 3.6)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.06))
    figure.suptitle(textwrap.fill(title, int(12 * width)), fontsize=10)
    places = figure.subplots(*((len(panels), 1) if stacked else (1, len(panels))))
    for draw, axes in zip(panels, np.ravel(places), strict=True):
        draw(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
