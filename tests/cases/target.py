"""The device under test, the dtypes that it has, what the layer under test claims, and tensors for it.

Read as attributes (`target.DEVICE`, `target.ALL`): `use_device` sets them before the tests are collected, `use_claims`
before each test.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from llama.implementation.claims import WORDS, Claims

DEVICE = torch.device("cpu")
CLAIMS = Claims()
"""What the layer under test claims. Everything, unless its author says otherwise."""
ALL: tuple[torch.dtype, ...]
"""The dtypes of the device that the layer claims."""
EXACT: tuple[torch.dtype, ...]
"""Those of them that are no half precision, if any is; else all of them."""
NARROWED: set[str] = set()
"""What this test would have asked besides, and has not since it is not claimed."""

SINGLE_OR_DOUBLE = (torch.float64, torch.float32)
_ALL: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_EXACT: tuple[torch.dtype, ...] = SINGLE_OR_DOUBLE
_NEAREST = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The order in which a dtype takes the place of another that is not claimed."""
_ROUNDED: list[Tensor] = []
"""Tensors of this test whose numbers the claimed dtypes do not hold."""


class NotClaimed(pytest.skip.Exception):  # type: ignore[name-defined]
    """Ends a test that needs what the layer under test does not claim, which is its message."""


def __getattr__(name: str) -> Any:
    if name == "ALL":
        return claimed(_ALL)
    if name == "EXACT":
        return claimed(_EXACT) or claimed(_ALL)
    raise AttributeError(name)


def use_device(device: torch.device) -> None:
    """Make all tensors on `device` from here on. Apple's GPUs have no float64."""
    global DEVICE, _EXACT, _ALL
    DEVICE = device
    if device.type == "mps":
        _EXACT, _ALL = _EXACT[1:], _ALL[1:]


def use_claims(claims: Claims) -> None:
    """Ask nothing else of the layer from here on."""
    global CLAIMS
    CLAIMS = claims
    NARROWED.clear()
    _ROUNDED.clear()


def claims(word: str) -> bool:
    """Whether the layer claims what is not claimed where that word is said; if not, the test is narrower than it is."""
    if word not in CLAIMS.words:
        return True
    NARROWED.add(WORDS[word])
    return False


def claimed(dtypes: Sequence[torch.dtype]) -> tuple[torch.dtype, ...]:
    """Those of them that the layer claims."""
    found = tuple(dtype for dtype in dtypes if CLAIMS.claims(dtype))
    NARROWED.update(_word(dtype) for dtype in dtypes if dtype not in found)
    return found


def nearest(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself where it is claimed, else the claimed one that takes its place."""
    found = [d for d in (dtype, *_NEAREST) if CLAIMS.claims(d) and (d in _ALL or d == dtype)]
    if found[:1] != [dtype]:
        NARROWED.add(_word(dtype))
    if not found:
        raise NotClaimed(_word(dtype))
    return found[0]


def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these values on the device under test; numbers with a point are float32, if it is claimed."""
    made = torch.as_tensor(values, dtype=dtype)
    if dtype is None and made.dtype == torch.float32 and (claimed := nearest(torch.float32)) != torch.float32:
        exact, made = made, made.to(claimed)
        if not torch.equal(made.to(exact.dtype), exact):
            _ROUNDED.append(made)
    return made.to(DEVICE)


def is_rounded(given: Tensor) -> bool:
    """Whether it holds other numbers than the test wrote down, since the claimed dtypes do not have these."""
    memory = given.untyped_storage().data_ptr()
    return any(memory == rounded.untyped_storage().data_ptr() for rounded in _ROUNDED)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
