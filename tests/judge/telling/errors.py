"""What Python and torch mean by an error, in words that a beginner has: where it was raised, from what, and what helps.

    in_words(error, files)

    In line 18 of rms_norm.py, `x / rms`: x is [1, 3, 2], rms is [1, 3]
    rms has no last axis any more, and axes are compared from the right: keepdim=True keeps it.

An error that is not known has its line and what stands there, and no advice.
"""

import ast
import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.judge.telling.sayings import SAYINGS


@dataclass
class Crash:
    """An error and the place in the layer's own files where it was raised."""

    error: BaseException
    expression: str
    """The source of what was evaluated."""
    line: str
    """The whole line."""
    names: Mapping[str, Any]
    """The variables that stand in the expression, and what they hold."""
    scope: Mapping[str, Any]
    """All variables of that function."""
    own: str
    """The name of that function."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.names.items() if isinstance(value, Tensor)}

    def named(self, kind: type) -> list[str]:
        return [name for name, value in self.names.items() if isinstance(value, kind)]


def in_words(error: BaseException, files: Collection[str]) -> list[str]:
    """Where it was raised and from what, and what helps, each in a sentence; nothing where it is not in these files."""
    place = _last_of(error.__traceback__, files)
    if place is None:
        return []
    frame = place.tb_frame
    (summary,) = traceback.StackSummary.extract([(frame, place.tb_lineno)], lookup_lines=True) or [None]
    whole = (summary.line if summary else "") or ""
    line = _expression(place) or whole
    if line.startswith("raise "):
        return []  # its own words say what it means
    scope = {**frame.f_locals}
    crash = Crash(error, line, whole, _names(line, scope), scope, frame.f_code.co_name)
    where = f"In line {place.tb_lineno} of {Path(frame.f_code.co_filename).name}"
    where += f", `{_shortened(line)}`" if line else ""
    held = ", ".join(f"{name} is {words}" for name, value in crash.names.items() if (words := _held(value)))
    advice = next((words for rule in [*RULES, _saying] if (words := rule(crash))), "")
    return [where + (f": {held}" if held else ""), *([advice] if advice else [])]


def _last_of(tb: TracebackType | None, files: Collection[str]) -> TracebackType | None:
    found = None
    while tb is not None:
        if tb.tb_frame.f_code.co_filename in files:
            found = tb
        tb = tb.tb_next
    return found


def _expression(place: TracebackType) -> str:
    """The source of the expression that raised, as Python 3.11 knows it."""
    positions = list(place.tb_frame.f_code.co_positions())
    line, end_line, column, end_column = positions[place.tb_lasti // 2]
    if line is None or end_line is None or column is None or end_column is None:
        return ""
    try:
        source = Path(place.tb_frame.f_code.co_filename).read_bytes().splitlines()[line - 1 : end_line]
        source[-1] = source[-1][:end_column]  # in bytes, as Python counts
        source[0] = source[0][column:]
        return " ".join(part.strip() for part in b"\n".join(source).decode().splitlines())
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


def _names(expression: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    try:
        tree = ast.parse(expression.rstrip(": ") or "0")
    except SyntaxError:
        found = re.findall(r"[A-Za-z_]\w*", expression)
    else:
        found = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        found.sort(key=expression.find)
    return {name: scope[name] for name in dict.fromkeys(found) if name in scope}


def _shortened(line: str, most: int = 60) -> str:
    return line if len(line) <= most else line[: most - 4] + " ..."


def _held(value: Any) -> str:
    """What a variable holds, as far as that may explain an error."""
    if isinstance(value, Tensor):
        dtype = "" if value.dtype == torch.float32 else f" {str(value.dtype).removeprefix('torch.')}"
        return f"{list(value.shape)}{dtype}" if value.ndim else f"a tensor without axes{dtype}"
    if value is None or isinstance(value, bool | int | float | range):
        return repr(value)
    if isinstance(value, list | tuple | dict):
        kind = type(value).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of {len(value)}"
    return ""


Rule = Callable[[Crash], str]
RULES: list[Rule] = []
"""Asked in this order; the first that knows the error speaks."""


def _for(
    pattern: str, kind: type[BaseException] = Exception
) -> Callable[[Callable[[Crash, re.Match[str]], str]], Rule]:
    """A rule for errors whose text matches."""

    def register(advise: Callable[[Crash, re.Match[str]], str]) -> Rule:
        def rule(crash: Crash) -> str:
            match = re.search(pattern, _text(crash.error), re.DOTALL) if isinstance(crash.error, kind) else None
            return advise(crash, match) if match else ""

        RULES.append(rule)
        return rule

    return register


def _saying(crash: Crash) -> str:
    return next((words for pattern, words in SAYINGS.items() if re.search(pattern, _text(crash.error))), "")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error of the layer's own, which cannot be printed
        return ""


def _closest(name: str, names: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.6)), "")


IMPORTS = {
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "math": "import math",
    "np": "import numpy as np",
    "numpy": "import numpy",
    "Tensor": "from torch import Tensor",
    "einops": "import einops",
}


@_for(r"name '(\w+)' is not defined", NameError)
def _name(crash: Crash, match: re.Match[str]) -> str:
    name = match[1]
    if name == "self":
        return "self belongs to a class. This is a function: all that it needs comes in as an argument."
    if name in IMPORTS:
        return f"`{IMPORTS[name]}` is missing at the top of the file."
    close = _closest(name, crash.scope)
    return f"There is no {name} here. Is {close} meant?" if close else f"Nothing here is called {name}."


@_for(r"local variable '(\w+)'", UnboundLocalError)
def _unbound(crash: Crash, match: re.Match[str]) -> str:
    return f"{match[1]} gets its value on another path only: give it one on each path, or before."


@_for(r"maximum recursion depth", RecursionError)
def _recursion(crash: Crash, match: re.Match[str]) -> str:
    return (
        f"{crash.own} calls itself without an end: within the file, {crash.own} is your own function. "
        f"torch's needs its full name."
    )


@_for(r"return_types\.(\w+)")
def _values_and_indices(crash: Crash, match: re.Match[str]) -> str:
    other = {"max": ", or use .amax(dim)", "min": ", or use .amin(dim)"}.get(match[1], "")
    return f".{match[1]}(dim) returns two things, the values and their indices: take .values{other}."


@_for(r"'NoneType'")
def _none(crash: Crash, match: re.Match[str]) -> str:
    if ".grad" in crash.expression:
        return ".grad is filled by backward() alone. Here the gradient comes in as an argument."
    if names := crash.named(type(None)):
        return f"{names[0]} is None here: it was not given, or what made it returns nothing."
    return "One of them is None: it was not given, or what made it returns nothing (is there a return?)."


@_for(r"'(Tensor|float|int|module|list|tuple)' object is not callable", TypeError)
def _not_callable(crash: Crash, match: re.Match[str]) -> str:
    what = "an operator missing before the parenthesis, or a name used twice"
    return f"A {match[1].lower()} is called like a function: is there {what}?"


@_for(r"Dimension out of range \(expected to be in range of \[-?\d+, (\d+)\], but got (-?\d+)\)")
def _dimension(crash: Crash, match: re.Match[str]) -> str:
    axes = int(match[1]) + 1
    return (
        f"The tensor has {axes} {'axis' if axes == 1 else 'axes'} here, so there is no dim={match[2]}. "
        "Where leading axes may be any number, count from the end: the last axis is dim=-1."
    )


@_for(r"too many indices for tensor of dimension (\d+)")
def _indices(crash: Crash, match: re.Match[str]) -> str:
    return f"The tensor has {match[1]} axes here. Where leading axes may be any number, index from the end: x[..., 0]."


@_for(r"(?:not enough|too many) values to unpack \(expected (\d+)")
def _unpack(crash: Crash, match: re.Match[str]) -> str:
    if ".shape" in crash.line or ".size()" in crash.line:
        return "There is another number of axes than you expect. Count sizes from the end: x.shape[-1]."
    return f"There are not {match[1]} values to take apart here."


@_for(r"The size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)")
def _broadcast(crash: Crash, match: re.Match[str]) -> str:
    shaped = list(crash.tensors.items())
    if "@" in crash.expression or "matmul" in crash.expression:
        return _product(crash) or "All axes but the last two must be equal, or 1."
    for (one, a), (other, b) in [*_pairs(shaped), *((y, x) for x, y in _pairs(shaped))]:
        if a.ndim == b.ndim - 1:
            if a.shape == b.shape[:-1]:
                return f"{one} has no last axis any more, and axes are compared from the right: keepdim=True keeps it."
            lost = next((i for i in range(b.ndim) if a.shape == b.shape[:i] + b.shape[i + 1 :]), None)
            if lost is not None:
                return f"{one} lacks axis {lost} of {other}: unsqueeze({lost}) puts one in, or keepdim=True keeps it."
        if a.ndim == b.ndim and a.shape[:-1] == b.shape[:-1] and 2 * a.shape[-1] == b.shape[-1]:
            return f"{one} has half as many columns as {other}: they belong to one half of it each."
        if a.ndim and b.ndim and 2 * a.shape[-1] == b.shape[-1]:
            return f"{one} has half as many columns as {other}: each half of {other} is multiplied by it."
    return "Axes are compared from the right: each pair must be equal, or one of them 1. Which axis is out of place?"


@_for(r"shapes cannot be multiplied|inconsistent tensor size|size mismatch|batch2 tensor to be|contraction dimension")
def _matrix_product(crash: Crash, match: re.Match[str]) -> str:
    return _product(crash) or (
        "In a @ b the last axis of a and the second last axis of b must be equal. A weight [d_out d_in] is "
        "multiplied as x @ weight.T."
    )


def _product(crash: Crash) -> str:
    reversing = re.search(r"(\w+)\.(?:T\b|t\(\))", crash.expression)
    if reversing and isinstance(value := crash.names.get(reversing[1]), Tensor) and value.ndim > 2:
        turned = f"{reversing[1]} has {value.ndim} axes, and .T turns all of them around"
        return f"{turned}: .transpose(-1, -2) exchanges the last two."
    for (one, a), (other, b) in _pairs(list(crash.tensors.items())):
        along = -1 if re.search(r"transpose|mT\b", crash.expression) else -2
        if a.ndim == b.ndim == 4 and a.shape[1] != b.shape[1] and a.shape[-1] == b.shape[along]:
            few, many = (one, other) if a.shape[1] < b.shape[1] else (other, one)
            return (
                f"{few} has fewer heads than {many}: each of its heads belongs to several of {many}, "
                f"one after the other: repeat_interleave(..., dim=1)."
            )
        if not reversing and a.ndim == 2 < b.ndim and a.shape[-1] == b.shape[-1]:
            return f"{other} has its features in its last axis, so the weight stands on the right: {other} @ {one}.T."
        if not reversing and b.ndim == 2 and a.ndim and a.shape[-1] == b.shape[-1]:
            return f"{other} is [out in], and its last axis is the one to sum over: {one} @ {other}.T."
        if not reversing and b.ndim > 2 and a.shape[-1] == b.shape[-1]:
            return (
                f"Both have {a.shape[-1]} features in their last axis: {one} @ {other}.transpose(-1, -2) sums over it."
            )
        if reversing and b.ndim == 2 and a.ndim and a.shape[-1] == b.shape[0]:
            return f"{other} fits as it is: leave out the .T."
    return ""


def _pairs(shaped: list[tuple[str, Tensor]]) -> Iterator[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    return ((a, b) for i, a in enumerate(shaped) for b in shaped[i + 1 :])


@_for(r"same dtype, but got|expected scalar type|must have the same dtype|expected m1 and m2")
def _dtypes(crash: Crash, match: re.Match[str]) -> str:
    kinds = {str(t.dtype).removeprefix("torch.") for t in crash.tensors.values()}
    found = re.search(r"got:? (\w+) (?:!=|and) (\w+)", str(crash.error))
    which = f" ({' and '.join(sorted(kinds))})" if len(kinds) > 1 else f" ({found[1]} and {found[2]})" if found else ""
    return f"The two have different dtypes{which}: bring one to the other's with .to(x.dtype)."


@_for(r"not implemented for '(Long|Int|Bool|Half|BFloat16)'|must be either a floating point|only tensors of floating")
def _integers(crash: Crash, match: re.Match[str]) -> str:
    if match[1] in ("Half", "BFloat16"):
        return "torch has no such function in half precision: compute in float32, and return to the dtype of x."
    return "These are integers, which torch has no such function for: make floats of them first."


@_for(r"shape '\[(.*?)\]' is invalid for input of size (\d+)")
def _reshape(crash: Crash, match: re.Match[str]) -> str:
    sizes = [int(size) for size in match[1].split(",") if size.strip()]
    product = 1
    for size in sizes:
        product *= size
    if -1 in sizes:
        return f"{match[2]} elements cannot be shared out so: {-product} does not divide {match[2]}."
    return f"[{match[1]}] holds {product} elements, and there are {match[2]}. Is one of the sizes that of another axis?"


@_for(r"^'?([\w.]+)'?$", KeyError)
def _key(crash: Crash, match: re.Match[str]) -> str:
    mappings = [value for value in crash.names.values() if isinstance(value, Mapping)]
    names = [key for mapping in mappings for key in mapping if isinstance(key, str)]
    if not names:
        return ""
    if match[1] == "lm_head.weight":
        return "Without lm_head.weight the head is tied: the weight of the embedding takes its place."
    close = next((key for key in names if key.startswith(match[1]) or key.endswith(match[1])), "")
    close = close or _closest(match[1], names)
    return f"There is no {match[1]}." + (
        f" Is {close} meant?" if close else f" There are {', '.join(sorted(names)[:9])}."
    )


@_for(r"module '([\w.]+)' has no attribute '(\w+)'", AttributeError)
def _of_module(crash: Crash, match: re.Match[str]) -> str:
    name = match[2]
    for place, module in (("torch", torch), ("torch.nn.functional", F), ("torch.Tensor", Tensor)):
        if hasattr(module, name):
            return f"{name} is to be found as {place}.{name}."
    close = _closest(name, dir(torch) + dir(F))
    return f"There is no {match[1]}.{name}." + (f" Is {close} meant?" if close else "")


@_for(r"'(\w+)' object has no attribute '(\w+)'", AttributeError)
def _attribute(crash: Crash, match: re.Match[str]) -> str:
    kind, name = match[1], match[2]
    if kind in ("float", "int"):
        return f"A Python {kind} has no .{name}: it is not a tensor. The functions of math take numbers."
    if kind in ("tuple", "list"):
        return f"This is a {kind} of several things: take the one that you need from it, or go through them."
    value = next((v for v in crash.names.values() if type(v).__name__ == kind), None)
    names = [n for n in dir(Tensor if kind == "Tensor" else value) if not n.startswith("_")]
    if kind != "Tensor" and value is not None:
        fields = list(getattr(type(value), "__annotations__", names))
        close = _closest(name, fields)
        return f"{kind} has no {name}." + (f" Is {close} meant?" if close else f" It has {', '.join(fields)}.")
    close = _closest(name, names)
    return f"A tensor has no .{name}." + (f" Is .{close} meant?" if close else "")


@_for(
    r"missing \d+ required|takes (?:from )?[\d to]+ positional arguments? but|unexpected keyword argument",
    TypeError,
)
def _arguments(crash: Crash, match: re.Match[str]) -> str:
    called = re.match(r"(?:\w+\.)*(\w+)\(\)", str(crash.error))
    name = called[1] if called else ""
    function = crash.scope.get(name) or next(
        (getattr(v, name) for v in crash.names.values() if callable(getattr(v, name, None))), None
    )
    try:
        parameters = ", ".join(inspect.signature(function).parameters) if function else ""
    except (TypeError, ValueError):
        parameters = ""
    return f"The call and the function do not fit: {name}({parameters})." if parameters else ""


@_for(r"argument '(\w+)' \(position \d+\) must be Tensor, not (\w+)|argument '(\w+)' must be Tensor, not (\w+)")
def _must_be_tensor(crash: Crash, match: re.Match[str]) -> str:
    kind = match[2] or match[4]
    if kind in ("int", "float"):
        return "torch's functions take tensors, and this is a number: math.sqrt, math.exp and ** take numbers."
    return f"torch's functions take a tensor, and this is a {kind}."


@_for(r"received an invalid combination of arguments - got \((.*?)\)")
def _combination(crash: Crash, match: re.Match[str]) -> str:
    return f"torch has no such function of ({match[1]}): is an argument in another place, or of another kind?"


@_for(r"result type (\w+) can't be cast to the desired output type (\w+)")
def _cast(crash: Crash, match: re.Match[str]) -> str:
    return f"A tensor of {match[2]} cannot hold {match[1]}: x = x / y makes a new tensor, x /= y does not."
