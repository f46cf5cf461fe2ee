"""Pictures from the tests: of a comparison that failed, and, with --plots, of what a layer does.

    def test_silu_is_relu_with_a_round_corner(silu, plot):
        plot(x, {"silu": silu(x), "relu": x.relu()}, xlabel="x")

`plot` and `imshow` stand in tests beside the asserts and do nothing without the option. With it, each test
that calls them leaves a picture (a panel for each call), and out/plots/index.html shows all in reading order.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.progress import claim, subject_of
from tests.subject import Subject

FAILURES = Path("out") / "failures"
PLOTS = Path("out") / "plots"

# What draws one panel.
Panel = Callable[[Any], None]


@pytest.fixture
def _panels(request: pytest.FixtureRequest) -> Iterator[list[Panel]]:
    """The panels of this test; at its end they become one picture."""
    panels: list[Panel] = []
    yield panels
    if panels and request.config.getoption("--plots"):
        request.config.stash[GALLERY].add(request.node, panels)


@pytest.fixture
def plot(_panels: list[Panel]) -> Callable[..., None]:
    """`plot(x, {label: y}, title=..., xlabel=..., ylabel=..., style="o-")`: lines over x."""

    def add(x: Any, lines: Mapping[str, Any], style: str = "-", **labels: Any) -> None:
        def draw(axes: Any) -> None:
            for label, y in lines.items():
                axes.plot(_numbers(x), _numbers(y), style, label=label, markersize=4)
            axes.set(**({"title": next(iter(lines))} if len(lines) == 1 else {}) | labels)
            axes.grid(alpha=0.3)
            if len(lines) > 1:
                axes.legend()
            if isinstance(x, range):
                axes.xaxis.get_major_locator().set_params(integer=True)

        _panels.append(draw)

    return add


@pytest.fixture
def imshow(_panels: list[Panel]) -> Callable[..., None]:
    """`imshow(matrix, title=..., xlabel=..., ylabel=...)`: a matrix in colours; what is not finite stays grey."""

    def add(matrix: Any, signed: bool = False, **labels: Any) -> None:
        _panels.append(lambda axes: _draw_matrix(axes, _numbers(matrix), signed, **labels))

    return add


def _numbers(values: Any) -> np.ndarray:
    return (values.detach().double().cpu() if isinstance(values, Tensor) else torch.as_tensor(values).double()).numpy()


class Gallery:
    """The pictures of a run. Of a test that runs for several implementations the first one is kept."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, str, str]] = {}

    def add(self, item: pytest.Function, panels: Sequence[Panel]) -> None:
        subject = subject_of(item)
        assert isinstance(subject, Subject)  # pictures are of layers
        file = f"{subject.layer}-{item.originalname.removeprefix('test_')}.png"
        if file not in self.entries:
            _save(PLOTS / file, panels)
            self.entries[file] = (subject.layer, claim(item), file)

    def write_index(self, layers: Sequence[str]) -> Path:
        in_order = sorted(self.entries.values(), key=lambda entry: layers.index(entry[0]))
        figures = [
            f'<figure><h2>{layer}</h2><img src="{html.escape(file)}" alt="{html.escape(sentence)}">'
            f"<figcaption>{html.escape(sentence[0].upper() + sentence[1:])}.</figcaption></figure>"
            for layer, sentence, file in in_order
        ]
        path = PLOTS / "index.html"
        path.write_text(PAGE.format(figures="\n".join(figures)), encoding="utf-8")
        return path


GALLERY = pytest.StashKey[Gallery]()
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the layers of Llama do</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
  figure {{ margin: 3rem 0; }}
  h2 {{ font-family: ui-monospace, monospace; }}
  img {{ width: 100%; border-radius: 6px; background: white; }}
</style>
<h1>What the layers of Llama do</h1>
<p>Each picture comes from a passing test, whose name is the sentence below it.</p>
{figures}
</html>
"""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--plots") and config.stash[GALLERY].entries:
        from llama.layers import LAYERS

        terminalreporter.write_line(f"pictures: {config.stash[GALLERY].write_index(LAYERS)}")


def save_comparison(path: Path, title: str, expected: Tensor, actual: Tensor, axes: Sequence[str]) -> Path:
    """Expected, yours and the difference, side by side: the last two axes of any size, through the worst element."""
    e, a = (np.atleast_2d(_numbers(t)) for t in (expected, actual))
    axes = ["", *axes][-max(2, len(axes)) :]
    # An axis of size one has nothing to show; those that have come last.
    order = sorted(range(e.ndim), key=lambda axis: e.shape[axis] > 1)
    e, a, axes = e.transpose(order), a.transpose(order), [axes[axis] for axis in order]
    with np.errstate(invalid="ignore"):
        difference = np.where(e == a, 0.0, a - e)  # equal infinities do not differ
    at = np.unravel_index(int(np.nan_to_num(np.abs(difference), nan=np.inf).argmax()), e.shape)[:-2]
    through = ", ".join(f"{name} {int(i)}" for name, i in zip(axes, at, strict=False))
    finite = np.concatenate([e[at][np.isfinite(e[at])], a[at][np.isfinite(a[at])]])
    shared = {"vmin": finite.min(), "vmax": finite.max()} if finite.size else {}
    labels = {"xlabel": axes[-1], "ylabel": axes[-2]}
    panels: list[Panel] = [
        lambda panel: _draw_matrix(panel, e[at], False, title="expected", **labels, **shared),
        lambda panel: _draw_matrix(panel, a[at], False, title="yours", **labels, **shared),
        lambda panel: _draw_matrix(panel, difference[at], True, title="yours - expected", **labels),
    ]
    return _save(path, panels, title + (f" ({through})" if through else ""))


def _draw_matrix(
    axes: Any, values: np.ndarray, signed: bool, vmin: Any = None, vmax: Any = None, **labels: Any
) -> None:
    """Viridis, or, for what has a sign, red and blue with white for zero."""
    import matplotlib as mpl

    shown = np.where(np.isfinite(values), values, np.nan)
    if signed:
        limit = float(np.nanmax(np.abs(shown), initial=0.0)) or 1.0
        vmin, vmax = -limit, limit
    colours = mpl.colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="0.6")
    image = axes.imshow(shown, cmap=colours, aspect="auto", interpolation="nearest", vmin=vmin, vmax=vmax)
    axes.set(**labels)
    for axis, size in zip((axes.yaxis, axes.xaxis), values.shape, strict=True):
        axis.set_ticks(range(0, size, max(1, size // 8)))
    axes.figure.colorbar(image, ax=axes)


def _save(path: Path, panels: Sequence[Panel], title: str = "") -> Path:
    from matplotlib.figure import Figure  # it costs a second, which a green run need not spend

    figure = Figure(figsize=(1 + 3.4 * max(2, len(panels)), 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for draw, axes in zip(panels, np.ravel(figure.subplots(1, len(panels))), strict=True):
        draw(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
