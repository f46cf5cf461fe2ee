"""What is left out since its author does not claim it (src/llama/implementation/claims.py), and how it is told.

Before each test, `target` learns what its layer claims, and draws no more. A test that needs what is not claimed ends
with NotClaimed. Both are counted, and told once at the end:

    not claimed: float64, mask, gradients: 31 tests left out, 12 tests with fewer dtypes or arguments
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest
import torch
from hypothesis.errors import FailedHealthCheck, Unsatisfiable

from llama.implementation import Claims, Implementation, Layer
from llama.implementation.claims import DTYPES
from llama.layers import LAYERS
from tests.cases import target
from tests.cases.case import LAYOUTS
from tests.cases.target import NotClaimed
from tests.judge.guards.endings import Refused
from tests.judge.items import subject_of
from tests.judge.subject import Mismatch, Subject

LEFT_OUT, NARROWED = "not claimed", "narrowed"
CONTIGUOUS = (LAYOUTS[0], "offset")
COUNTS: dict[str, Counter[str]] = defaultdict(Counter)
"""How many tests were left out and narrowed, by implementation."""

_REFUSED: list[str] = []
"""What a whole model of this test has asked of a layer that does not claim it."""


def guarded(implementation: Implementation) -> Implementation:
    """Its layers, which end a test where a whole model calls them with what they do not claim."""
    if not implementation.claims:
        return implementation

    def guard(name: str, layer: Layer) -> Layer:
        claims = implementation.claims.get(name, Claims()).about(name)
        if not claims or name in implementation.stubs:
            return layer

        @functools.wraps(layer)
        def call(*args: Any, **kwargs: Any) -> Any:
            if reason := claims.refusal(name, args, kwargs):
                _REFUSED.append(reason)
                raise NotClaimed(reason)
            args, kwargs = claims.trimmed(name, args, kwargs)
            return layer(*args, **kwargs)

        return call

    given = {name: guard(name, f) for name, f in implementation.layers.items() if implementation.defines(name)}
    new = Implementation(implementation.name, given, source=implementation.source)
    new.claims = implementation.claims
    return new


def pytest_collection_finish() -> None:
    COUNTS.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    subject = subject_of(item)
    claims = subject.claims if isinstance(subject, Subject) else _of_all(subject) if subject else Claims()
    target.use_claims(claims)
    _REFUSED.clear()
    if claims and item.get_closest_marker("written") is None and (reason := _needs(item, claims)):
        raise NotClaimed(reason)


def _of_all(implementation: Implementation) -> Claims:
    """The dtypes in which a whole model can be tested: those of all its layers, where a model is exact in one."""
    claims = [implementation.claims.get(layer, Claims()).about(layer) for layer in implementation.layers]
    common = {name for name, dtype in DTYPES.items() if all(of.claims(dtype) for of in claims)}
    exact = {"float64", "float32"} & common
    return Claims(tuple(name for name in DTYPES if name in common)) if exact and len(common) < len(DTYPES) else Claims()


def _needs(item: pytest.Item, claims: Claims) -> str:
    """What the test is about, as its marks and parameters say, that is not claimed."""
    callspec = getattr(item, "callspec", None)
    params = dict(callspec.params) if callspec else {}
    dtypes = [value for value in params.values() if isinstance(value, torch.dtype)]
    if item.get_closest_marker("float64"):
        dtypes.append(torch.float64)
    if item.get_closest_marker("exact") and not any(map(claims.claims, target.SINGLE_OR_DOUBLE)):
        dtypes.append(torch.float32)
    unclaimed = [dtype for dtype in dtypes if not claims.claims(dtype)]
    if unclaimed:
        return str(unclaimed[0]).removeprefix("torch.")
    if "no strides" in claims.words and params.get("layout", CONTIGUOUS[0]) not in CONTIGUOUS:
        return "strides"
    return ""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    except (Unsatisfiable, FailedHealthCheck):
        if target.NARROWED:  # no example is left
            raise NotClaimed(min(target.NARROWED)) from None
        raise
    except (Mismatch, Refused):
        if _REFUSED:  # within a whole model, which the judge has contained
            raise NotClaimed(_REFUSED[0]) from None
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    subject = subject_of(item)
    under_test = subject.implementation if isinstance(subject, Subject) else subject
    if under_test is not None and call.excinfo is not None and isinstance(call.excinfo.value, NotClaimed):
        report.claimed = under_test.name, LEFT_OUT
    elif under_test is not None and report.when == "call" and target.NARROWED:
        report.claimed = under_test.name, NARROWED
    return report


def is_left_out(report: pytest.TestReport) -> bool:
    return getattr(report, "claimed", ("", ""))[1] == LEFT_OUT


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if claimed := getattr(report, "claimed", None):
        name, how = claimed
        COUNTS[name][how] += 1


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return (LEFT_OUT, "", LEFT_OUT.upper()) if is_left_out(report) else None


def summary(implementation: Implementation) -> str:
    """What is not claimed, and how many tests that concerns; nothing where everything is claimed."""
    lacking = [word for claims in _distinct(implementation) for word in claims.not_claimed]
    if not lacking:
        return ""
    left_out, narrowed = (COUNTS[implementation.name][how] for how in (LEFT_OUT, NARROWED))
    words = ", ".join(dict.fromkeys(lacking))
    return f"not claimed: {words}: {left_out} tests left out, {narrowed} tests with fewer dtypes or arguments"


def header(implementation: Implementation) -> str:
    """What is claimed; nothing where that is everything."""
    of = _distinct(implementation)
    if not of:
        return ""
    alone = len(of) == 1 and len(next(iter(of.values()))) == len(implementation.layers)
    words = "; ".join(f"{claims}" if alone else f"{claims} ({', '.join(layers)})" for claims, layers in of.items())
    return f"{implementation.name} claims {words}"


def _distinct(implementation: Implementation) -> dict[Claims, list[str]]:
    """The claims that there are, each with its layers."""
    of: dict[Claims, list[str]] = defaultdict(list)
    for layer in LAYERS:
        if claims := implementation.claims.get(layer):
            of[claims].append(layer)
    return of
