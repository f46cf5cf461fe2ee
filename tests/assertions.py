"""One way to compare, and one way to say what is wrong.

In the order type, shape, dtype, device, finite, values; then one sentence:

    rms_norm (yours): out[1, 3, 0] is 0.5 but should be 0.25, the worst of 3 wrong in 24
    [batch=2 seq=4 d_model=6 float32 seed=17]
    called with x[2, 4, 6] float32, weight[6] float32, eps=1e-05
    Look at: ...
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from tests import strategies
from tests.strategies import Case, tensor
from tests.subject import Subject
from tests.tolerances import tolerance


def assert_equals_naive(subject: Subject, *args: Any, look_at: str = "", **kwargs: Any) -> None:
    """Call the layer and compare all that it returns with what the naive loops make of the same arguments."""
    actual = subject(*args, **kwargs)
    expected = subject.expected(*args, **kwargs)
    dtype = next((t.dtype for t in _tensors((args, kwargs)) if t.is_floating_point()), None)
    _compare(actual, expected, dtype, look_at, "out")


def assert_close(
    actual: Any, expected: Any, look_at: str = "", within: float | None = None, dtype: torch.dtype | None = None
) -> None:
    """Compare two results of the same dtype; `within` replaces the tolerance of the dtype."""
    _compare(actual, expected, dtype, look_at, "out", within)


def assert_identical(actual: Tensor, expected: Tensor, look_at: str = "") -> None:
    """The same to the last bit."""
    _compare(actual, expected, None, look_at, "out", 0.0)


def assert_finite(actual: Tensor, look_at: str = "") -> None:
    """No NaN and no infinity."""
    _compare(actual.isfinite(), torch.ones_like(actual, dtype=torch.bool), None, look_at, "finite")


def assert_like(actual: Tensor, other: Tensor, look_at: str = "") -> None:
    """The same dtype and device, whatever the values."""
    if (actual.dtype, actual.device) != (other.dtype, other.device):
        fail(
            f"out must be {_word(other.dtype)} on {other.device}, got {_word(actual.dtype)} on {actual.device}", look_at
        )


def fail(sentence: str, look_at: str = "") -> None:
    """Fail with the sentence, what was called with what, and where to look."""
    __tracebackhide__ = True
    lines = [f"{Subject.last.subject.name}: {sentence}" if Subject.last else sentence]
    if Case.last:
        lines.append(f"[{Case.last!r}]")
    if Subject.last:
        lines.append(f"called with {_called_with()}")
    if look_at:
        lines.append(f"Look at: {look_at}")
    raise AssertionError("\n".join(lines))


def _compare(
    actual: Any, expected: Any, dtype: torch.dtype | None, look_at: str, name: str, within: float | None = None
) -> None:
    __tracebackhide__ = True
    if isinstance(expected, list | tuple):
        if not isinstance(actual, list | tuple) or len(actual) != len(expected):
            fail(f"{name} must be a {type(expected).__name__} of {len(expected)}, got {actual!r:.60}", look_at)
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            _compare(a, e, dtype, look_at, f"{name}[{i}]", within)
        return
    if not isinstance(expected, Tensor):
        expected = tensor(expected)
        actual = tensor(actual) if isinstance(actual, int | float) else actual
    if not isinstance(actual, Tensor):
        fail(f"{name} must be a tensor, got {type(actual).__name__}", look_at)
    if actual.shape != expected.shape:
        fail(f"{name} must have shape {list(expected.shape)}, got {list(actual.shape)}", look_at)
    should_be = dtype if dtype is not None and expected.is_floating_point() else expected.dtype
    if actual.dtype != should_be:
        fail(f"{name} must be {_word(should_be)}, got {_word(actual.dtype)}", look_at)
    # The judge computes on the CPU; what a layer makes of tensors belongs on theirs, the device under test. A call
    # without tensors (rope_frequencies) names no device.
    placed = Subject.last is None or _tensors((Subject.last.args, Subject.last.kwargs))
    if placed and actual.device.type != strategies.DEVICE.type:
        fail(f"{name} must be on {strategies.DEVICE}, got {actual.device}", look_at)
    _compare_values(actual, expected, look_at, name, within)


def _compare_values(actual: Tensor, expected: Tensor, look_at: str, name: str, within: float | None) -> None:
    __tracebackhide__ = True
    if actual.numel() == 0:
        return
    if not actual.is_floating_point():
        within = 0.0
    elif within is None:
        within = tolerance(actual.dtype, Subject.last.subject.layer if Subject.last else "")
    a, e = actual.detach().cpu().double(), expected.detach().cpu().double()
    # Where both are the same infinity there is no error; where only one is, or one is NaN, it is infinite.
    error = torch.where(a == e, 0.0, (a - e).abs()).nan_to_num(nan=torch.inf)
    finite = e[e.isfinite()].abs()
    scale = max(1.0, finite.max().item() if finite.numel() else 0.0)
    excess = error - within * (e.abs().nan_to_num(posinf=0.0) + scale)
    wrong = (excess > 0) | ((a != e) & (within == 0.0))
    if wrong.any():
        worst = torch.unravel_index(error.argmax(), error.shape)
        where = f"{name}[{', '.join(str(int(i)) for i in worst)}]" if e.ndim else name
        fail(
            f"{where} is {a[worst]:.7g} but should be {e[worst]:.7g}, the worst of {int(wrong.sum())} wrong "
            f"in {wrong.numel()}",
            look_at,
        )


def _called_with() -> str:
    assert Subject.last is not None
    call = Subject.last
    try:
        names = list(inspect.signature(call.subject.function).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i}" for i in range(len(names), len(call.args))]
    return ", ".join(_describe(n, v) for n, v in [*zip(names, call.args, strict=False), *call.kwargs.items()])


def _describe(name: str, value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.is_contiguous() else " not contiguous"
        return f"{name}{list(value.shape)} {_word(value.dtype)}{layout}"
    if isinstance(value, list | dict) and _tensors(value):
        return f"{name} of {len(value)} tensors"
    return f"{name}={value!r}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [t for item in items for t in _tensors(item)]
