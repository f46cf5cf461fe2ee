"""The device under test, the dtypes that it has, and tensors on it.

Read as attributes (`target.DEVICE`, `target.ALL`): `use_device` sets them before the tests are collected.
"""

from typing import Any

import torch
from torch import Tensor

DEVICE = torch.device("cpu")


EXACT: tuple[torch.dtype, ...] = (torch.float64, torch.float32)


ALL: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def use_device(device: torch.device) -> None:
    """Make all tensors on `device` from here on. Apple's GPUs have no float64."""
    global DEVICE, EXACT, ALL
    DEVICE = device
    if device.type == "mps":
        EXACT, ALL = EXACT[1:], ALL[1:]


def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these values on the device under test; numbers with a point are float32."""
    return torch.as_tensor(values, dtype=dtype).to(DEVICE)
