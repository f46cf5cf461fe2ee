"""What a teacher has set, from a small TOML file.

name = "Week 3"
deadline = "Friday, noon"
layers = ["rms_norm", "rope"]
points = { rms_norm = 2, rope = 3 }
forbidden = ["fused"]
time = 60
"""

import pkgutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama.layers import LAYERS, unknown


@dataclass(frozen=True)
class Assignment:
    name: str = ""
    deadline: str = ""
    """In any words; it is printed, and not compared with the clock."""
    layers: tuple[str, ...] = ()
    """Those that are judged; none for all that a submission defines."""
    points: dict[str, float] = field(default_factory=dict)
    """Of a layer that is done; 1 where it is not said."""
    forbidden: tuple[str, ...] = ()
    """Functions of torch that no layer may call; `fused` for all of its ready-made layers."""
    claims: bool = False
    """Whether a layer earns its points although its author claims less than everything (docs/kernels.md)."""
    time: float | None = None
    """Seconds for one layer."""
    memory: int | None = None
    """Megabytes for one layer."""
    examples: int | None = None
    """Examples per property."""

    def points_of(self, layer: str) -> float:
        return self.points.get(layer, 1)


KINDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "name": ("a text", str),
    "deadline": ("a text", str),
    "layers": ("a list of layers", list),
    "points": ("a table of numbers", dict),
    "forbidden": ("a list of texts", list),
    "claims": ("true or false", bool),
    "time": ("a number of seconds above 0", (int, float)),
    "memory": ("a whole number of megabytes above 0", int),
    "examples": ("a whole number above 0", int),
}


def read(path: Path) -> Assignment:
    """Raises ValueError for what cannot be meant, OSError for a file that cannot be read."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    for key, value in given.items():
        if key not in KINDS:
            raise ValueError(f"{path}: there is no {key}; an assignment has {', '.join(KINDS)}")
        words, kind = KINDS[key]
        wrong = isinstance(value, bool) if kind is not bool else False
        if wrong or not isinstance(value, kind) or (isinstance(value, int | float) and kind is not bool and value <= 0):
            raise ValueError(f"{path}: {key} must be {words}, got {value!r}")
    _check(path, given)
    lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    return Assignment(**given | lists)


def _check(path: Path, given: dict[str, Any]) -> None:
    for layer in [*given.get("layers", ()), *given.get("points", ())]:
        if layer not in LAYERS:
            raise ValueError(f"{path}: {unknown(str(layer))}")
    for layer, points in given.get("points", {}).items():
        if isinstance(points, bool) or not isinstance(points, int | float) or points < 0:
            raise ValueError(f"{path}: points of {layer} must be a number from 0 on, got {points!r}")
        if layer not in given.get("layers", (layer,)):
            raise ValueError(f"{path}: there are points for {layer}, which is not among the layers")
    if "layers" in given and not given["layers"]:
        raise ValueError(f"{path}: layers must name at least one")
    for name in given.get("forbidden", ()):
        if not isinstance(name, str):
            raise ValueError(f"{path}: forbidden must be a list of texts, got {name!r}")
        check_forbidden(name, str(path))


def check_forbidden(name: str, where: str) -> None:
    """Raise ValueError for what torch does not have."""
    try:
        known = name == "fused" or (name.startswith("torch.") and pkgutil.resolve_name(name) is not None)
    except (ImportError, AttributeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{where}: torch has no {name}; write it as in torch.nn.functional.rms_norm, or fused")
