"""`pytest --zoo --as liger`: which bugs of the zoo would pass the tests of others.

What they test stands in tests/zoo/others.py. Here it is done: the same call goes to `vectorized` and to a bug, and the
results are compared as they compare them.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from llama.implementation import map_leaves, tensors
from llama.layers import LAYERS
from tests import zoo
from tests.cases import target
from tests.cases.calls import Arguments, calls_of
from tests.judge.subject import FORMULA, unchecked
from tests.zoo.others import SUITES, Check, Layer, Suite

ALL = "all"
# The bugs that pass: layer -> names.
Passing = dict[str, list[str]]
Outcome = tuple[list[Tensor], list[Tensor]]


def passing(suite: Suite, layer: str, functions: Mapping[str, Layer]) -> list[str]:
    """Those of the functions that pass all that the suite tests of that layer."""
    right, alive = getattr(FORMULA, layer), dict(functions)
    for check in (check for check in suite.checks if check.layer == layer):
        for case in check.cases(suite.seeds):
            if not alive:
                return []
            arguments = check.arguments(case)
            allowed = _allowed(check, right, arguments)
            alive = {
                name: function
                for name, function in alive.items()
                if _passes(check, function, arguments, allowed, suite.compares_dtypes)
            }
    return list(alive)


def _passes(
    check: Check,
    function: Layer,
    arguments: Arguments,
    allowed: Sequence[tuple[Tensor, Tensor | float]],
    compares_dtypes: bool,
) -> bool:
    try:
        values, gradients = _outcome(check, function, arguments)
        if check.differences and not _gradients_are_its_own_differences(check, function, arguments):
            return False
    except Exception:  # whatever it raises, their test fails
        return False
    found = values + ([] if check.differences else gradients)
    return len(found) == len(allowed) and all(
        _is_within(actual, *of, compares_dtypes) for actual, of in zip(found, allowed, strict=True)
    )


def _is_within(actual: Tensor, expected: Tensor, tolerance: "Tensor | float", compares_dtypes: bool) -> bool:
    if actual.shape != expected.shape or (compares_dtypes and actual.dtype != expected.dtype):
        return False
    return bool(((actual.double() - expected.double()).abs() <= tolerance).all())  # NaN is not


def _allowed(check: Check, right: Layer, arguments: Arguments) -> list[tuple[Tensor, Tensor | float]]:
    """What is expected, and how far each element may lie from it; first of the values, then of the gradients."""
    dtype = _dtype(arguments)
    atol, rtol = check.within.get(dtype, next(iter(check.within.values())))
    if check.plain is None:
        values, gradients = _outcome(check, right, arguments)
        expected = values + ([] if check.differences else gradients)
        return [(e, atol + rtol * e.double().abs()) for e in expected]
    exact = _outcome(check, right, map_leaves(_widened, arguments))
    plain = _outcome(check, check.plain, arguments)
    return [
        (e.to(dtype), times * float((p.float() - e.to(dtype).float()).abs().max()) + atol)
        for times, exacts, plains in zip(check.times, exact, plain, strict=True)
        for e, p in zip(exacts, plains, strict=True)
    ]


def _dtype(arguments: Arguments) -> torch.dtype:
    return next((t.dtype for t in tensors(arguments) if t.is_floating_point()), torch.float64)


def _widened(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _outcome(check: Check, function: Layer, arguments: Arguments) -> Outcome:
    """The values and the gradients of one call on a copy of these arguments, laid out as they are."""
    args, kwargs = copy.deepcopy(arguments)
    leaves = _leaves(check, args)
    with torch.set_grad_enabled(check.gradients), warnings.catch_warnings(), unchecked():
        warnings.simplefilter("ignore")
        result = check.call(function, *args, **kwargs)
        values = tensors(map_leaves(lambda leaf: target.tensor(leaf) if isinstance(leaf, float) else leaf, result))
        if not check.gradients or check.differences:
            return [value.detach() for value in values], []
        made = torch.Generator().manual_seed(0)
        upstream = [
            (check.upstream * torch.randn(v.shape, generator=made)).to(v) if v.ndim else torch.ones_like(v)
            for v in values
        ]
        return [value.detach() for value in values], list(torch.autograd.grad(values, leaves, upstream))


def _leaves(check: Check, args: Sequence[Any]) -> list[Tensor]:
    """The tensors whose gradients are asked for."""
    if not check.gradients:
        return []
    return [leaf.requires_grad_() for index in calls_of(check.layer).gradients for leaf in tensors(args[index])]


def _gradients_are_its_own_differences(check: Check, function: Layer, arguments: Arguments) -> bool:
    args, kwargs = copy.deepcopy(arguments)
    if any(0 in leaf.shape for leaf in _leaves(check, args)):
        return True  # gradcheck takes no empty tensor, and there is no gradient to compare
    atol, rtol = next(iter(check.within.values()))
    return torch.autograd.gradcheck(lambda *of: function(*of, **kwargs), args, atol=atol, rtol=rtol, fast_mode=True)


class AsOthers:
    """Plugin of one run, which runs no test."""

    def __init__(self, name: str, layer: str):
        if name != ALL and name not in SUITES:
            raise pytest.UsageError(f"--as must be one of {', '.join([*SUITES, ALL])}, got {name}")
        self.suites = SUITES if name == ALL else {name: SUITES[name]}
        self.layers = [layer] if layer in LAYERS else list(LAYERS)
        self.bugs = {of: [bug.name for bug in zoo.bugs(of)] for of in self.layers}
        self.passing: dict[str, Passing] = {}

    def pytest_collection(self, session: pytest.Session) -> bool:
        session.items, session.testscollected = [], sum(map(len, self.bugs.values()))
        return True

    def pytest_runtestloop(self) -> bool:
        for name, suite in self.suites.items():
            self.passing[name] = {
                layer: passing(suite, layer, {bug.name: bug.function for bug in zoo.bugs(layer)})
                for layer in self.layers
                if layer in suite.layers
            }
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("the zoo, as others judge it")
        lines = self._list() if len(self.suites) == 1 else self._table()
        terminalreporter.write_line("\n".join(lines))

    def _list(self) -> Iterator[str]:
        for name, suite in self.suites.items():
            passed = self.passing.get(name, {})
            yield f"{suite.title}: github.com/{suite.repository} at {suite.commit[:7]}"
            yield from (f"  {check.layer}: {check.source}" for check in suite.checks if check.layer in passed)
            yield f"  not asked: {suite.left_out}"
            yield from (f"{layer}: {bug} passes" for layer, bugs in passed.items() for bug in bugs)
            tested, count = self._counts(name)
            yield f"of {tested} bugs in layers that it tests, {count} would pass"

    def _table(self) -> Iterator[str]:
        """A row for each layer, a column for each suite."""
        width = max(map(len, LAYERS)) + 2
        yield " " * width + "".join(f"{name:>17}" for name in self.suites)
        for layer in self.layers:
            cells = (self._cell(name, layer) for name in self.suites)
            yield f"{layer:{width}}" + "".join(f"{cell:>17}" for cell in cells)
        totals = (self._counts(name) for name in self.suites)
        yield f"{'would pass':{width}}" + "".join(f"{f'{count} of {tested}':>17}" for tested, count in totals)

    def _cell(self, name: str, layer: str) -> str:
        passed = self.passing.get(name, {}).get(layer)
        return "" if passed is None else f"{len(passed)} of {len(self.bugs[layer])}"

    def _counts(self, name: str) -> tuple[int, int]:
        """The bugs in layers that it tests, and those that pass."""
        passed = self.passing.get(name, {})
        return sum(len(self.bugs[layer]) for layer in passed), sum(map(len, passed.values()))
