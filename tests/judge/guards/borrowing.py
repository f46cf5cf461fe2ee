"""Whether a layer computes by itself, or calls the project's own layer of that name.

While it runs, Python reports each function that is called, however it was found: by its name, in `sys.modules`, among
the objects of the garbage collector, or in a frame of the judge. Text that is copied from here is not seen.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import llama.layers
from llama.layers import CHAPTER, LAYERS
from tests.judge.guards.endings import Refused

_FOLDER = Path(llama.layers.__file__).parent
_LAYER_OF = {str(_FOLDER / chapter / f"{layer}.py"): layer for layer, chapter in CHAPTER.items()}


@contextlib.contextmanager
def by_itself(layer: str) -> Iterator[None]:
    """Raise Refused after it has called our own `layer`, or one made of it; those beneath are given to a learner."""
    borrowed: list[str] = []
    above = {file: name for file, name in _LAYER_OF.items() if LAYERS.index(name) >= LAYERS.index(layer)}

    def see(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename in above:
            borrowed.append(above[frame.f_code.co_filename])

    if sys.getprofile() is not None:  # somebody measures this run, and there is one place only
        yield
        return
    sys.setprofile(see)
    try:
        yield
    finally:
        blinded = sys.getprofile() is not see
        sys.setprofile(None)
    if blinded:
        raise Refused("the layer changed Python's profile function, which sees whose code runs")
    if borrowed:
        raise Refused(f"the layer calls the project's own {borrowed[0]}, and is to compute by itself")
