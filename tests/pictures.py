"""A picture of a comparison that failed: expected, yours, and the difference, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FAILURES = Path("out") / "failures"


def save_comparison(path: Path, title: str, expected: Tensor, actual: Tensor, axes: Sequence[str]) -> Path:
    """Draw the last two axes, through the worst element. What is not finite stays grey."""
    import matplotlib as mpl  # it costs a second, which a green run need not spend
    from matplotlib.figure import Figure

    e, a = (torch.atleast_2d(t.double()) for t in (expected, actual))
    axes = ["", *axes][-max(2, len(axes)) :]
    difference = a - e
    worst = int(difference.abs().nan_to_num(nan=torch.inf).argmax())
    at = np.unravel_index(worst, e.shape)[:-2]
    slices = {name: t[at] for name, t in (("expected", e), ("yours", a), ("yours - expected", difference))}
    through = ", ".join(f"{name} {int(i)}" for name, i in zip(axes, at, strict=False))

    values = torch.cat([slices["expected"].flatten(), slices["yours"].flatten()])
    values = values[values.isfinite()]
    low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 1.0)
    finite = difference[at][difference[at].isfinite()].abs()
    limit = finite.max().item() if len(finite) and finite.max() else 1.0

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(title + (f" ({through})" if through else ""), fontsize=10)
    for panel, (name, values) in zip(figure.subplots(1, 3), slices.items(), strict=True):
        signed = name == "yours - expected"
        colours = mpl.colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="0.6")
        shown = values.masked_fill(~values.isfinite(), torch.nan).numpy()
        limits = {"vmin": -limit, "vmax": limit} if signed else {"vmin": low, "vmax": high}
        image = panel.imshow(shown, cmap=colours, aspect="auto", interpolation="nearest", **limits)
        panel.set(title=name, xlabel=axes[-1], ylabel=axes[-2])
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.yaxis.get_major_locator().set_params(integer=True)
        figure.colorbar(image, ax=panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
