"""Functions of torch that a layer may not call, seen where they are called.

    with Watch(["torch.nn.functional.rms_norm"]).watching() as seen:
        ...
    seen                             # ["torch.nn.functional.rms_norm"]

A name is that of torch's documentation. `fused` stands for all of torch's ready-made layers.
"""

import ast
import contextlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FUSED = (
    *(f"torch.{name}" for name in ("softmax", "log_softmax", "logsumexp", "rms_norm", "layer_norm", "embedding")),
    *(f"torch.Tensor.{name}" for name in ("softmax", "log_softmax", "logsumexp")),
    *(
        f"torch.nn.functional.{name}"
        for name in (
            *("softmax", "log_softmax", "softmin", "cross_entropy", "nll_loss", "embedding", "embedding_bag", "linear"),
            *("rms_norm", "layer_norm", "silu", "glu", "scaled_dot_product_attention", "normalize"),
            *("multi_head_attention_forward",),
        )
    ),
    *(f"torch.special.{name}" for name in ("softmax", "log_softmax", "logsumexp")),
    *(f"torch.nn.utils.{name}" for name in ("clip_grad_norm_", "get_total_norm", "clip_grads_with_norm_")),
    *(f"torch.optim.{name}" for name in ("Adam", "AdamW", "lr_scheduler.CosineAnnealingLR")),
    "torch.multinomial",
    "torch.Tensor.multinomial",
)
OPERATORS = (
    *("_softmax", "_log_softmax", "logsumexp", "nll_loss_forward", "embedding", "_fused_rms_norm", "rms_norm", "silu"),
    *("native_layer_norm", "glu", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable"),
    *("_fused_adamw", "_fused_adamw_", "_fused_adam", "_fused_adam_", "multinomial", "linear"),
)
"""What these are made of, wherever it is called from."""


def names_of(asked: Iterable[str]) -> list[str]:
    """The functions that are meant. Raises ValueError for a name that torch does not have."""
    names = [name for one in asked for name in (FUSED if one == "fused" else (one,))]
    for name in names:
        if _find(name) is None and name not in FUSED:  # some are not in each version of torch
            raise ValueError(f"torch has no {name}; write it as in torch.nn.functional.rms_norm, or fused")
    return names


def _find(name: str) -> Any:
    """What a dotted name of torch means; None where there is nothing of that name."""
    if not name.startswith("torch."):
        return None
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None


class Watch:
    """Sees which of these functions are called, but for calls from files of the folder that is `spared`."""

    def __init__(self, names: Iterable[str], spared: str = ""):
        names, self.spared = names_of(names), spared
        self.functions = {found: name for name in names if (found := _find(name)) is not None}
        last = {name.rpartition(".")[2]: name for name in names}
        self.operators = {f"_{operator}": name for operator, name in last.items()} | last
        if set(FUSED) <= set(names):
            self.operators = {name: f"torch.ops.aten.{name}" for name in OPERATORS} | self.operators

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Gives a list of those that are called within."""
        seen: list[str] = []

        def see(name: str) -> None:
            if name not in seen and not (self.spared and _calls_from(self.spared)):
                seen.append(name)

        if not self.functions:
            yield seen
            return
        with _Functions(self.functions, see), _Operators(self.operators, see):
            yield seen


def _calls_from(folder: str) -> bool:
    """Whether a function of a file there is being called."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(folder):
            return True
        frame = frame.f_back
    return False


def named_in(source: str, names: Iterable[str]) -> dict[str, int]:
    """Which of these functions the text of a file names, by whatever name it has imported them, and in which line."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # it cannot be imported either
    means = {"torch": "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            means |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            means |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    wanted = set(names)
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := _dotted(node, means)) in wanted:
            found.setdefault(dotted, node.lineno)
    return found


def _dotted(node: ast.AST, means: dict[str, str]) -> str:
    """`torch.nn.functional.silu` for `F.silu`; nothing for what is no name."""
    if isinstance(node, ast.Name):
        return means.get(node.id, "")
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value, means)):
        return f"{owner}.{node.attr}"
    return ""


class _Functions(TorchFunctionMode):
    """Sees the functions that a person writes."""

    def __init__(self, names: dict[Any, str], see: Callable[[str], None]):
        super().__init__()
        self.names, self.see = names, see

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name := self.names.get(function):
            self.see(name)
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Sees what they come down to: called from compiled code, by another name, or in a backward pass."""

    def __init__(self, names: dict[str, str], see: Callable[[str], None]):
        super().__init__()
        self.names, self.see = names, see

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = function._schema.name.removeprefix("aten::")
        if operator in self.names and function._schema.name.startswith("aten::"):
            self.see(self.names[operator])
        return function(*args, **(kwargs or {}))
