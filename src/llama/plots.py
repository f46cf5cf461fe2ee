"""Pictures of a run, drawn to files: no display is needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def losses(
    path: Path,
    train: Sequence[tuple[int, float]],
    validation: Sequence[tuple[int, float]],
    title: str,
    floor: float | None = None,
) -> None:
    """Training and validation loss over steps, with the entropy floor where there is one."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*train, strict=True), color="tab:blue", alpha=0.35, linewidth=0.8, label="training batch")
    axes.plot(*zip(*validation, strict=True), color="tab:orange", marker="o", label="validation split")
    step, value = validation[-1]
    axes.annotate(f"{value:.3f}", (step, value), textcoords="offset points", xytext=(0, 9), ha="right")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"entropy of the text, {floor:.3f}")
    axes.set(xlabel="step", ylabel="loss in nats per character", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
