"""What a call leaves as it was: the state of torch, NumPy and Python, with which others compute too."""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

VARIABLES = ("HYPOTHESIS_PROFILE", "LLAMA_IMPL", "LLAMA_DATA_DIR", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONPATH")
"""What the suite and its tools read of the environment."""


def _variables() -> list[str | None]:
    return [os.environ.get(name) for name in VARIABLES]


def _put_variables_back(before: list[str | None]) -> None:
    for name, value in zip(VARIABLES, before, strict=True):
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _leave_modes(depth: int) -> None:
    while torch._C._len_torch_function_stack() > depth:
        torch._C._pop_torch_function_stack()


# How to read it, and how to put it back.
STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    "the modes that torch's functions run in": (torch._C._len_torch_function_stack, _leave_modes),
    "how NumPy treats errors": (np.geterr, lambda was: np.seterr(**was)),
    "environment variables that the suite reads": (_variables, _put_variables_back),
    "Python's recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "Python's profile function": (sys.getprofile, sys.setprofile),
    "Python's trace function": (sys.gettrace, sys.settrace),
}

# torch's compiler raises the recursion limit to this before it compiles (torch/_inductor/compile_fx.py).
BY_THE_COMPILER = {"Python's recursion limit": 2000}


def taken() -> list[Any]:
    """The state before a call, for `put_back`."""
    return [read() for read, _ in STATE.values()]


def put_back(before: list[Any]) -> dict[str, Any]:
    """Put back what a call has changed. Returns the changed values by their names, without what torch's compiler sets.

    The recursion limit is put back after the compiler too: a layer that is right only with a higher one must fail.
    """
    changed = {}
    for (name, (read, change)), was in zip(STATE.items(), before, strict=True):
        if (now := read()) != was:
            change(was)
            if now != BY_THE_COMPILER.get(name):
                changed[name] = now
    return changed
