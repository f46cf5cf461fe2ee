"""The losses of a run, step by step, and their chart."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float64
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

STEPS, VALIDATION, COUNT = "losses.steps", "losses.validation", "optimizer.step_count"


class Step(NamedTuple):
    """What is known of a step: its learning rate, the norm of the gradient before clipping, the loss before it."""

    lr: float
    norm: float
    loss: float


@dataclass
class Losses:
    """All steps of a run so far, and the loss of the whole validation split after some of them; nats per token."""

    steps: list[Step] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)

    def tensors(self) -> dict[str, Float64[Tensor, "rows columns"]]:
        """Both in float64, which is what they are: nothing is rounded."""
        return {
            STEPS: torch.tensor(self.steps, dtype=torch.float64).reshape(-1, len(Step._fields)),
            VALIDATION: torch.tensor(self.validation, dtype=torch.float64).reshape(-1, 2),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Losses":
        """What `tensors` made."""
        validation = [(int(step), loss) for step, loss in tensors[VALIDATION].tolist()]
        return cls([Step(*row) for row in tensors[STEPS].tolist()], validation)

    def write_csv(self, path: Path) -> None:
        """A row per step; the validation loss where it was measured."""
        measured = dict(self.validation)
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "learning_rate", "gradient_norm", "train_loss", "validation_loss"])
            rows.writerow([0, "", "", "", measured.get(0, "")])
            rows.writerows([i, *step, measured.get(i, "")] for i, step in enumerate(self.steps, start=1))


def draw_losses(
    path: Path,
    train: Sequence[tuple[int, float]],
    validation: Sequence[tuple[int, float]],
    title: str,
    floor: float | None = None,
    unit: str = "character",
) -> None:
    """Training and validation loss over steps in nats per `unit`, with the entropy floor where there is one."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*train, strict=True), color="tab:blue", alpha=0.35, linewidth=0.8, label="training batch")
    axes.plot(*zip(*validation, strict=True), color="tab:orange", marker="o", label="validation split")
    step, value = validation[-1]
    axes.annotate(f"{value:.3f}", (step, value), textcoords="offset points", xytext=(0, 9), ha="right")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"entropy of the text, {floor:.3f}")
    axes.set(xlabel="step", ylabel=f"loss in nats per {unit}", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
