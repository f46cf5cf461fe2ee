"""One way to compare: in the order type, shape, dtype, device, finite, values.

What fails raises a Mismatch; tests/judge/telling/messages.py turns it into what a person reads.
"""

import ast
import contextlib
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llama.implementation import map_leaves, tensors
from llama.layers import gradients_of, result_dtypes_of
from tests.cases import target
from tests.cases.calls import Arguments, calls_of
from tests.cases.target import tensor
from tests.judge import python_values
from tests.judge.subject import FORMULA, Mismatch, Subject, word
from tests.judge.tolerances import HALF, OF_HALF, rounding, tolerance

LONG = 40
"""So many characters of a test's own expression are still a name."""


def assert_equals_naive(subject: Subject, *args: Any, look_at: str = "", **kwargs: Any) -> None:
    """Call the layer and compare all that it returns with what the naive loops make of the same arguments."""
    actual = subject(*args, **kwargs)
    _compare_results(subject, actual, subject.expected, look_at)


def assert_equals_formula(
    subject: Subject, *args: Any, look_at: str = "", long_sums: bool = False, **kwargs: Any
) -> None:
    """The same beside `vectorized` in float64, which other tests prove: where the loops would take too long.

    With `long_sums`, so many terms are added up that float32 itself is not exact to its tolerance.
    """
    actual = subject(*args, **kwargs)
    _compare_results(subject, actual, subject.formula, look_at, long_sums)


def assert_within_autocast(
    subject: Subject, arguments: Arguments, actual: Any, dtype: torch.dtype, look_at: str
) -> None:
    """Compare what came within autocast: as exact as products of that dtype, or as the arguments without products."""
    args, kwargs = arguments
    expected = subject.formula(*args, **kwargs)
    given = next((t.dtype for t in tensors(arguments) if t.is_floating_point()), None)
    if not calls_of(subject.layer).multiplies:
        _compare_all(actual, expected, given, look_at, calls_of(subject.layer).results, 0.0)
        return
    with torch.autocast(target.DEVICE.type, dtype):
        of_formula = getattr(FORMULA, subject.layer)(*args, **kwargs)
    names = result_names(subject.layer, expected)
    for name, a, e, own in zip(names, *map(in_order, (actual, expected, of_formula)), strict=True):
        if a.is_floating_point() and a.dtype in (torch.float32, dtype):
            beyond = allowance(dtype, subject.layer, own, e)
            _compare(a.to(dtype), e, dtype, look_at, name, beyond=beyond)
        else:
            _compare(a, e, given, look_at, name)


def _compare_results(
    subject: Subject, actual: Any, judge: Callable[..., Any], look_at: str, long_sums: bool = False
) -> None:
    assert Subject.last is not None  # it was just called
    # Made after the call and from copies: there is nothing that the layer could have found or changed.
    arguments = args, kwargs = Subject.last.given
    expected = judge(*args, **kwargs)
    if not subject.takes_tensors:
        assert_equal(actual, expected, look_at)
        return
    dtype = next((t.dtype for t in tensors(arguments) if t.is_floating_point()), None)
    beyond: Any = 0.0
    # The sums of a gradient over tokens are long, and cancel.
    if long_sums or gradients_of(subject.layer) or (dtype in HALF and calls_of(subject.layer).rounds_within):
        args, kwargs = at_least_single(subject.layer, arguments)
        beyond = _allowances(dtype, subject.layer, getattr(FORMULA, subject.layer)(*args, **kwargs), expected)
    _compare_all(actual, expected, dtype, look_at, calls_of(subject.layer).results, beyond)


def _allowances(dtype: torch.dtype | None, layer: str, of_formula: Any, expected: Any) -> Any:
    """`allowance`, for each gradient by itself: one may be a hundred times as large as another."""
    if isinstance(expected, dict):
        return {name: _allowances(dtype, layer, of_formula[name], e) for name, e in expected.items()}
    if isinstance(expected, tuple) and gradients_of(layer):
        return [_allowances(dtype, layer, own, e) for own, e in zip(of_formula, expected, strict=True)]
    return allowance(dtype, layer, of_formula, expected)


def _compare_all(actual: Any, expected: Any, dtype: Any, look_at: str, names: Sequence[str], beyond: Any) -> None:
    """Compare a result, or several of these names."""
    if len(names) == 1:
        _compare(actual, expected, dtype, look_at, names[0], beyond=beyond)
        return
    if not isinstance(actual, list | tuple) or len(actual) != len(names):
        got = f"a {type(actual).__name__}" + (f" of {len(actual)}" if isinstance(actual, list | tuple) else "")
        fail(f"out must be a tuple of {len(names)}, ({', '.join(names)}), got {got}")
    dtypes = result_dtypes(dtype, len(names))
    for i, (name, of_part) in enumerate(zip(names, dtypes, strict=True)):
        within = OF_HALF if dtype in HALF and of_part == torch.float32 else None
        if isinstance(of_part, tuple) and of_part[0].is_floating_point:
            within = tolerance(of_part[0])  # ours is as exact as the narrowest of them
        _compare(actual[i], expected[i], of_part, look_at, name, within, _part(beyond, i))


def result_dtypes(first: torch.dtype | None, count: int) -> list[Any]:
    """Those of the results of the last call: that of its first float argument, or what the contract says; a tuple where
    several are right."""
    assert Subject.last is not None  # it was just called
    args, kwargs = Subject.last.given
    if not (of_contract := result_dtypes_of(Subject.last.subject.layer)):
        return [first] * count
    double_too = calls_of(Subject.last.subject.layer).double_too and first == torch.float64
    return [(dtype, torch.float64) if double_too else dtype for dtype in of_contract(*args, **kwargs)]


def _part(of: Any, key: Any) -> Any:
    """What holds for that part: the same for all, or something for each."""
    return of[key] if isinstance(of, list | tuple | dict) else of


def result_names(layer: str, result: Any) -> list[str]:
    """`out`, or `grad_x` and `gradients["mlp.up_proj.weight"]`: what the tensors in a result are called, in order."""
    names, found = calls_of(layer).results, []
    for name, part in zip(names, result if len(names) > 1 else [result], strict=True):
        keys = [f'["{key}"]' for key in sorted(part)] if isinstance(part, dict) else None
        counted = [f"[{i}]" for i in range(len(tensors(part)))] if isinstance(part, list | tuple) else [""]
        found += [name + key for key in keys or counted]
    return found


def in_order(result: Any) -> list[Tensor]:
    """Its tensors, those of a mapping in the order of their names."""
    if isinstance(result, dict):
        return [result[name] for name in sorted(result)]
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in in_order(part)]
    return tensors(result)


def at_least_single(layer: str, arguments: Arguments) -> Arguments:
    """The arguments with which the plain formula is asked how exact it is: float32, where nothing need be rounded."""
    if calls_of(layer).rounds_within:
        return arguments
    widened: Arguments = map_leaves(lambda t: t.float() if isinstance(t, Tensor) and t.dtype in HALF else t, arguments)
    return widened


def allowance(dtype: torch.dtype | None, layer: str, of_formula: Any, expected: Any) -> float:
    """What is allowed beyond the tolerance, from what the plain formula makes of the same arguments."""
    exact = [[part.detach().cpu().double() for part in tensors(of)] for of in (of_formula, expected)]
    error = max((float((a - e).abs().max()) for a, e in zip(*exact, strict=True) if a.numel()), default=0.0)
    largest = max((float(e.abs().max()) for e in exact[1] if e.numel()), default=0.0)
    return rounding(dtype or torch.float32, layer, error, largest)


def assert_close(
    actual: Any,
    expected: Any,
    look_at: str = "",
    within: float | None = None,
    dtype: torch.dtype | None = None,
    name: str = "",
    beyond: float = 0.0,
) -> None:
    """Compare two results of the same dtype; `within` replaces the tolerance of the dtype, `beyond` adds to it."""
    with _named_as_in_the_test(sys._getframe(1)):
        _compare(actual, expected, dtype, look_at, name or _name(actual), within, beyond)


def assert_identical(actual: Tensor, expected: Tensor, look_at: str = "") -> None:
    """The same to the last bit."""
    with _named_as_in_the_test(sys._getframe(1)):
        _compare(actual, expected, None, look_at, _name(actual), 0.0)


def assert_equal(actual: Any, expected: Any, look_at: str = "") -> None:
    """The same plain Python value, of the same types all through."""
    with _named_as_in_the_test(sys._getframe(1)):
        Subject.refuse_late_writing()
        if sentence := python_values.difference(actual, expected, _name(actual)):
            fail(sentence, look_at)


MADE = "value"


def _name(actual: Any) -> str:
    """`out` for what the layer returned, MADE for what a test has made of it, whose axes the contract has not."""
    return (Subject.last.name_of(actual) if Subject.last else "") or MADE


@contextlib.contextmanager
def _named_as_in_the_test(frame: FrameType) -> Iterator[None]:
    """What a test has made of the result is called by its source: `out.argmax(-1)[0]` in place of `value[0]`."""
    try:
        yield
    except Mismatch as mismatch:
        if not mismatch.sentence.startswith(MADE) or not (source := _first_argument(frame)):
            raise
        sentence = source + mismatch.sentence.removeprefix(MADE)
        raise Mismatch(sentence, mismatch.look_at, mismatch.differing) from None


def _first_argument(frame: FrameType) -> str:
    """The source of the first argument of the call that this frame is in, where it is short; else nothing."""
    line, end_line, column, end_column = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    if line is None or line != end_line:
        return ""
    text = linecache.getline(frame.f_code.co_filename, line).encode()[column:end_column].decode()
    try:
        (statement,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return ""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call) or not statement.value.args:
        return ""
    argument = statement.value.args[0]
    source = ast.unparse(argument)
    primary = isinstance(argument, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    return "" if len(source) > LONG else source if primary else f"({source})"


def assert_finite(actual: Tensor, look_at: str = "", name: str = "out") -> None:
    """No NaN and no infinity."""
    wrong = ~actual.detach().isfinite().cpu()
    if wrong.any():
        where = ", ".join(map(str, wrong.nonzero()[0].tolist()))
        values = actual.detach().cpu()
        sentence = f"{name}[{where}] is {values[wrong][0]} but should be finite"
        fail(sentence, look_at, (values, torch.zeros_like(values), wrong))


def assert_like(actual: Tensor, other: Tensor, look_at: str = "", name: str = "out") -> None:
    """The same dtype and device, whatever the values."""
    if (actual.dtype, actual.device) != (other.dtype, other.device):
        fail(
            f"{name} must be {word(other.dtype)} on {other.device}, got {word(actual.dtype)} on {actual.device}",
            look_at,
        )


def fail(sentence: str, look_at: str = "", differing: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
    raise Mismatch(sentence, look_at, differing)


def _compare(
    actual: Any,
    expected: Any,
    dtype: Any,
    look_at: str,
    name: str,
    within: float | None = None,
    beyond: Any = 0.0,
) -> None:
    """Compare; `dtype` may be a tuple of those that are right, `beyond` may have something for each part."""
    Subject.refuse_late_writing()
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            fail(f"{name} must be a dict from the names of the weights, got a {type(actual).__name__}")
        if missing := sorted(expected.keys() - actual.keys()):
            fail(f"{name} lacks {', '.join(missing)}")
        if extra := sorted(map(str, actual.keys() - expected.keys())):
            fail(f"{name} has {', '.join(extra)}, which weights has not")
        for key, e in expected.items():
            _compare(actual[key], e, dtype, look_at, f'{name}["{key}"]', within, _part(beyond, key))
        return
    if isinstance(expected, list | tuple):
        if not isinstance(actual, list | tuple) or len(actual) != len(expected):
            got = f"a {type(actual).__name__}" + (f" of {len(actual)}" if isinstance(actual, list | tuple) else "")
            fail(f"{name} must be a {type(expected).__name__} of {len(expected)}, got {got}")
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            _compare(a, e, dtype, look_at, f"{name}[{i}]", within, _part(beyond, i))
        return
    if not isinstance(expected, Tensor):
        expected = tensor(expected)
        actual = tensor(actual) if isinstance(actual, int | float) else actual
    number = Subject.last is not None and calls_of(Subject.last.subject.layer).number
    if number and isinstance(actual, float) and expected.ndim == 0:
        # As exact as float32 at least, in whatever dtype the layer returned it.
        floats = [t.dtype for t in tensors(Subject.last.given) if t.is_floating_point()] if Subject.last else []
        expected = expected.to(torch.promote_types(torch.float32, floats[0]) if floats else torch.float32)
    if isinstance(actual, float) and expected.ndim == 0:
        actual = tensor(actual, expected.dtype)  # a norm or a loss may be a number, which is on no device
        dtype = None
    if not isinstance(actual, Tensor):
        if isinstance(actual, list | tuple):
            fail(f"{name} must be one tensor, got a {type(actual).__name__} of {len(actual)}: return the tensor alone")
        fail(f"{name} must be a tensor, got {type(actual).__name__}")
    if actual.shape != expected.shape:
        fail(f"{name} must have shape {list(expected.shape)}, got {list(actual.shape)}", _on_shapes(actual, expected))
    should_be = dtype if dtype is not None and expected.is_floating_point() else expected.dtype
    if isinstance(should_be, tuple):  # any of these
        should_be = actual.dtype if actual.dtype in should_be else should_be[0]
    if actual.dtype != should_be:
        told = "the result has the dtype of the argument: tell torch.zeros and torch.tensor, or end with .to(x.dtype)"
        fail(
            f"{name} must be {word(should_be)}, got {word(actual.dtype)}", told if expected.is_floating_point() else ""
        )
    # The judge computes on the CPU; what a layer makes of tensors belongs on theirs, the device under test. A call
    # without tensors (rope_frequencies) names no device.
    placed = Subject.last is None or tensors((Subject.last.args, Subject.last.kwargs))
    if placed and actual.device.type != target.DEVICE.type:
        fail(f"{name} must be on {target.DEVICE}, got {actual.device}", look_at)
    _compare_values(actual, expected, look_at, name, within, beyond)


def _on_shapes(actual: Tensor, expected: Tensor) -> str:
    differing = [(a, e) for a, e in zip(actual.shape, expected.shape, strict=False) if a != e]
    stretched = actual.ndim == expected.ndim and all(e == 1 < a for a, e in differing)
    return "an axis that is missing, so that two others were broadcast against each other" if stretched else ""


def _compare_values(
    actual: Tensor, expected: Tensor, look_at: str, name: str, within: float | None, beyond: float
) -> None:
    error, wrong = differences(actual, expected, Subject.last.subject.layer if Subject.last else "", within, beyond)
    if wrong.any():
        worst = np.unravel_index(int(error.argmax()), error.shape)  # torch's own imports sympy, which takes a second
        a, e = actual.detach().cpu(), expected.detach().cpu()
        where = f"{name}[{', '.join(str(int(i)) for i in worst)}]" if e.ndim else name
        got, right = (f"{t[worst].item():.7g}" for t in (a, e))
        if got == right:  # they differ further back
            got, right = repr(a[worst].item()), repr(e[worst].item())
        sentence = f"{where} is {got} but should be {right}"
        fail(sentence, look_at, (a, e, wrong))


def differences(
    actual: Tensor, expected: Tensor, layer: str = "", within: float | None = None, beyond: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The error of each element, and whether it is more than the dtype (or `within`) and `beyond` allow."""
    if not actual.is_floating_point():
        within = 0.0
    elif within is None:
        within = tolerance(actual.dtype, layer)
    a, e = actual.detach().cpu().double(), expected.detach().cpu().double()
    error, size = (a - e).abs(), e.abs().nan_to_num(posinf=0.0)
    if bool((error <= beyond + within * (size + 1.0)).all()):  # as nearly always, and seen in half the time
        return error, torch.zeros_like(error, dtype=torch.bool)
    # Where both are the same infinity there is no error; where only one is, or one is NaN, it is infinite.
    error = torch.where(a == e, 0.0, error).nan_to_num(nan=torch.inf)
    finite = size[e.isfinite()]
    scale = max(1.0, finite.max().item() if finite.numel() else 0.0)
    excess = error - beyond - within * (size + scale)
    return error, (excess > 0) | ((a != e) & (within == 0.0))
