"""Where no known bug fits: the one change that would make the result right, found by trying.

    repair("attention", function)      "Your output is the right one multiplied by sqrt(head_dim)."

A change is named only where it makes the result right in every call that is wrong, and there are several of these, of
distinct sizes. So what is found is a fact about the results; where in the layer it comes from is left to its author.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from llama.layers import parameters_of
from tests.cases.calls import calls_of
from tests.judge.assertions import differences
from tests.judge.telling.locations import NOUNS, axes
from tests.judge.tolerances import tolerance


@dataclass
class Result:
    """One part of what a call returned, beside the right one, in float64, and what the call was made of."""

    theirs: Tensor
    right: Tensor
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Sizes and numbers of the call by name."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Its tensors by name."""


Change = tuple[str, Callable[[Result], Tensor | None]]
"""What the output is, and the right result made into that; None where it cannot be done."""

CONSTANTS = {
    "2": 2.0,
    "1/2": 0.5,
    "4": 4.0,
    "1/4": 0.25,
    "log(2)": math.log(2),
    "1/log(2)": 1 / math.log(2),
    "log(10)": math.log(10),
    "1/log(10)": 1 / math.log(10),
    "pi": math.pi,
    "1/pi": 1 / math.pi,
    "2 pi": 2 * math.pi,
    "1/(2 pi)": 1 / (2 * math.pi),
    "180/pi": 180 / math.pi,
    "pi/180": math.pi / 180,
    "sqrt(2)": math.sqrt(2),
    "1/sqrt(2)": 1 / math.sqrt(2),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "the logarithm of the right one": torch.log,
    "the exponential of the right one": torch.exp,
    "the square of the right one": torch.square,
    "the square root of the right one": torch.sqrt,
    "one divided by the right one": torch.reciprocal,
    "one minus the right one": lambda right: 1 - right,
    "the magnitude of the right one, without its sign": torch.abs,
    "the right one with relu applied to it": torch.relu,
    "the softmax of the right one": lambda right: right.softmax(-1) if right.ndim else right,
    "the right one, cut off at whole numbers": torch.trunc,
}


def repair(layer: str, results: list[list[Result]]) -> str:
    """A sentence on the output of these calls, or nothing. Each call has as many parts as the layer returns."""
    wrong = [parts for parts in results if any(_differ(part.theirs, part.right) for part in parts)]
    if len(wrong) < 2 or len({len(parts) for parts in wrong}) > 1:
        return ""
    if len(wrong[0]) > 1 and (order := _order(layer, wrong)):
        return order
    for i, of_part in enumerate(zip(*wrong, strict=True)):
        if not any(_differ(part.theirs, part.right) for part in of_part):
            continue
        if found := _change(layer, list(of_part), i):
            return f"{_name(layer, i, len(wrong[0]))} is {found}."
        break  # one that is not understood: of the others nothing is said
    return ""


def _name(layer: str, part: int, parts: int) -> str:
    """What that part of a result is called."""
    names = calls_of(layer).results
    return "Your output" if parts == 1 else names[part] if len(names) == parts else f"out[{part}]"


def _change(layer: str, results: list[Result], part: int) -> str:
    for what, make in _changes(layer, results, part):
        if all((made := make(result)) is not None and not _differ(result.theirs, made) for result in results):
            return what
    return _pattern(layer, results, part)


def _differ(theirs: Tensor, right: Tensor) -> bool:
    if theirs.shape != right.shape:
        return True
    _, wrong = differences(theirs, right, within=tolerance(torch.float32))
    return bool(wrong.any())


def _changes(layer: str, results: list[Result], part: int) -> Iterator[Change]:
    first = results[0]
    if any(result.theirs.shape != result.right.shape for result in results):
        yield from _shapes(layer, first.right, part)
        return
    yield "the right one with its sign turned", lambda r: -r.right
    yield "zero everywhere", lambda r: torch.zeros_like(r.right)
    for what, function in FUNCTIONS.items():
        yield what, _with(lambda r, f: f(r.right), function)
    for what, value in CONSTANTS.items():
        yield f"the right one multiplied by {what}", _with(lambda r, c: c * r.right, value)
    for name in first.numbers:
        for what, of in _powers(name):
            yield f"the right one multiplied by {what}", _with(lambda r, n, f: f(r.numbers.get(n)) * r.right, name, of)
    for name in first.tensors:
        yield f"the right one with {name} added to it", _with(lambda r, n: _sum(r, n, 1), name)
        yield f"the right one without {name}, which is to be added", _with(lambda r, n: _sum(r, n, -1), name)
        yield f"{name} itself", _with(lambda r, n: r.tensors.get(n), name)
        yield f"the right one multiplied by {name}", _with(lambda r, n: _product(r, n), name)
    names = axes(layer, first.right.ndim, part)
    for axis, name in enumerate(names):
        yield f"the right one in reverse order along {name}", _with(lambda r, a: r.right.flip(a), axis)
        for by in (1, -1):
            where = "later" if by > 0 else "earlier"
            yield (
                f"the right one shifted along {name}: each {NOUNS.get(name, 'entry')} stands one place {where}",
                _with(lambda r, a, b: r.right.roll(b, a), axis, by),
            )
    if first.right.ndim and all(result.right.shape[-1] % 2 == 0 for result in results):
        yield "the right one with the two halves of its last axis exchanged", _halves_exchanged
        yield "the right one with its two halves interleaved along the last axis", _interleaved
        yield "the right one with neighbours along the last axis sorted into two halves", _sorted_into_halves
    for a, b in permutations(range(first.right.ndim), 2):
        if a < b:
            what = f"the right numbers with {names[a]} and {names[b]} exchanged and then read in the old shape"
            yield what, _with(lambda r, a, b: r.right.transpose(a, b).reshape(r.right.shape), a, b)
    offset = (first.theirs - first.right).flatten()
    if offset.numel() and not _differ(offset, offset[:1].expand_as(offset)):
        yield f"the right one with {offset[0].item():.6g} added to it", _with(lambda r, c: r.right + c, offset[0])
    kept = first.right.abs() > 1e-3
    if kept.any():
        factor = (first.theirs[kept] / first.right[kept]).median()
        yield f"the right one multiplied by {factor.item():.6g}", _with(lambda r, c: c * r.right, factor)


def _with(make: Callable[..., Tensor | None], *given: Any) -> Callable[[Result], Tensor | None]:
    """A lambda in a loop would take the variables of its end."""
    return lambda result: make(result, *given)


def _shapes(layer: str, right: Tensor, part: int) -> Iterator[Change]:
    """What else than the values may be meant by another shape."""
    names = axes(layer, right.ndim, part)
    for axis, name in enumerate(names):
        noun = NOUNS.get(name, f"{name} index")
        yield f"the right one for the last {noun} alone", _with(lambda r, a: r.right.select(a, -1), axis)
        yield (
            f"the right one for the last {noun} alone",
            _with(lambda r, a: r.right.narrow(a, r.right.shape[a] - 1, 1), axis),
        )
        yield f"the right one for the first {noun} alone", _with(lambda r, a: r.right.select(a, 0), axis)
        yield f"the right one for the first {noun} alone", _with(lambda r, a: r.right.narrow(a, 0, 1), axis)
        yield f"the mean of the right one over {name}", _with(lambda r, a: r.right.mean(a), axis)
        yield f"the sum of the right one over {name}", _with(lambda r, a: r.right.sum(a), axis)
        yield f"the right one twice along {name}", _with(lambda r, a: torch.cat((r.right, r.right), a), axis)
        twice = f"the right one with each {noun} twice"
        yield twice, _with(lambda r, a: r.right.repeat_interleave(2, a), axis)
    for a, b in permutations(range(right.ndim), 2):
        if a < b:
            yield (
                f"the right one with {names[a]} and {names[b]} exchanged",
                _with(lambda r, a, b: r.right.transpose(a, b), a, b),
            )
    yield "the mean of the right one", lambda r: r.right.mean()
    yield "the sum of the right one", lambda r: r.right.sum()
    yield "right in its numbers, but of another shape", _as_theirs


def _as_theirs(result: Result) -> Tensor | None:
    same = result.theirs.numel() == result.right.numel()
    return result.right.reshape(result.theirs.shape) if same else None


def _powers(name: str) -> Iterator[tuple[str, Callable[[float | None], float]]]:
    powers = {name: 1, f"sqrt({name})": 0.5, f"1/{name}": -1, f"1/sqrt({name})": -0.5, f"{name} squared": 2}
    for what, power in powers.items():
        yield what, functools.partial(_power, power)


def _power(power: float, value: float | None) -> float:
    return value**power if value is not None and value > 0 else math.nan


def _sum(result: Result, name: str, sign: int) -> Tensor | None:
    other = result.tensors.get(name)
    return result.right + sign * other if other is not None and other.shape == result.right.shape else None


def _product(result: Result, name: str) -> Tensor | None:
    other = result.tensors.get(name)
    fits = other is not None and other.ndim and other.shape == result.right.shape[result.right.ndim - other.ndim :]
    return result.right * other if fits and other is not None else None


def _halves_exchanged(result: Result) -> Tensor:
    one, other = result.right.chunk(2, -1)
    return torch.cat((other, one), -1)


def _interleaved(result: Result) -> Tensor:
    return torch.stack(result.right.chunk(2, -1), -1).flatten(-2)


def _sorted_into_halves(result: Result) -> Tensor:
    return torch.cat((result.right[..., ::2], result.right[..., 1::2]), -1)


def _pattern(layer: str, results: list[Result], part: int) -> str:
    """No single change, but what all wrong elements have in common."""
    if any(r.theirs.shape != r.right.shape or r.right.ndim < 2 or r.right.shape[-1] < 3 for r in results):
        return ""
    last = axes(layer, results[0].right.ndim, part)[-1]
    row = f"a row (all of one {last} axis)"
    if all(_constant(r.theirs / r.right, -1) for r in results):
        return f"the right one with each row multiplied by a number of its own: what {row} is divided by is wrong"
    if all(_constant(r.theirs - r.right, -1) for r in results):
        return f"the right one with a number of its own added to each row: what is taken from {row} is wrong"
    return ""


def _constant(values: Tensor, axis: int) -> bool:
    return bool(values.isfinite().all()) and not _differ(values, values.narrow(axis, 0, 1).expand_as(values))


def _order(layer: str, wrong: list[list[Result]]) -> str:
    """The parts of a result in another order."""
    order: list[int] = []
    count = len(wrong[0])
    for i in range(count):
        fits = (j for j in range(count) if j not in order)
        fit = next((j for j in fits if not any(_differ(parts[i].theirs, parts[j].right) for parts in wrong)), None)
        if fit is None:
            return ""
        order.append(fit)
    if order == sorted(order):
        return ""
    first = _name(layer, order[0], count)
    return f"Your results are right, but in another order: first comes {first} of the right ones."


def named(layer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The numbers and float tensors among the arguments, by the names of the contract; sizes by those of the axes."""
    parameters = parameters_of(layer)
    given = dict(zip(parameters, args, strict=False)) | kwargs
    numbers = {n: float(v) for n, v in given.items() if type(v) in (int, float)}
    tensors = {n: v.double() for n, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()}
    for name, value in given.items():
        shape = getattr(parameters[name].annotation, "dim_str", "").split()
        if isinstance(value, Tensor) and len(shape) == value.ndim and "..." not in shape:
            numbers |= {axis: float(size) for axis, size in zip(shape, value.shape, strict=True)}
        elif isinstance(value, Tensor) and shape[:1] == ["..."] and value.ndim >= len(shape) - 1:
            sizes = value.shape[value.ndim - len(shape) + 1 :]
            numbers |= {axis: float(size) for axis, size in zip(shape[1:], sizes, strict=True)}
    return numbers, tensors
