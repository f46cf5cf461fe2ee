"""What was expected, what came, and the difference, as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FAILURES = Path("out") / "failures"

# What draws one panel.
Panel = Callable[[Any], None]


def numbers(values: Any) -> np.ndarray:
    return (values.detach().double().cpu() if isinstance(values, Tensor) else torch.as_tensor(values).double()).numpy()


def save_comparison(path: Path, title: str, expected: Tensor, actual: Tensor, axes: Sequence[str]) -> Path:
    """Expected, yours and the difference, side by side: the last two axes of any size, through the worst element."""
    e, a = (np.atleast_2d(numbers(t)) for t in (expected, actual))
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
        lambda panel: draw_matrix(panel, e[at], False, title="expected", **labels, **shared),
        lambda panel: draw_matrix(panel, a[at], False, title="yours", **labels, **shared),
        lambda panel: draw_matrix(panel, difference[at], True, title="yours - expected", **labels),
    ]
    return save(path, panels, title + (f" ({through})" if through else ""))


def draw_matrix(axes: Any, values: np.ndarray, signed: bool, vmin: Any = None, vmax: Any = None, **labels: Any) -> None:
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


def save(path: Path, panels: Sequence[Panel], title: str = "") -> Path:
    from matplotlib.figure import Figure  # it costs a second, which a green run need not spend

    figure = Figure(figsize=(1 + 3.4 * max(2, len(panels)), 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for draw, axes in zip(panels, np.ravel(figure.subplots(1, len(panels))), strict=True):
        draw(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
