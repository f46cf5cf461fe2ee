"""What a failing test says: never a dump of tensors, but what a person would want to be told, in this order.

    rms_norm (my_llama) was called with x[1, 2] float32, weight[2] float32, eps=3.0
    out[0, 0] is 0.25 but should be 0.5
    all 2 elements are wrong
    Your output is exactly what you get when eps is added outside the square root.
    Read tests/unit/model/test_rms_norm.py
    Failed: eps is added to the mean square inside the root, tests/unit/model/test_rms_norm.py:36
    Picture: out/failures/rms_norm-test_eps_is_added_to_the_mean_square_inside_the_root-my_llama.png

Hypothesis' report is left out: the sizes, the dtype and the seed of its smallest example stand in the first line.
"""

import re
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis.errors
import pytest
import torch

from llama.implementation import Layer, map_leaves
from llama.kata.board import unit_test
from tests.cases import target
from tests.cases.case import Case
from tests.judge.assertions import differences
from tests.judge.diagnosis import RIGHT, behind_other_faults, diagnose
from tests.judge.items import claim, subject_of
from tests.judge.locations import axes, where
from tests.judge.pictures import FAILURES, save_comparison
from tests.judge.subject import Call, Mismatch, Subject, tensors, word


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    error, subject = (call.excinfo.value if call.excinfo else None), subject_of(item)
    if error is not None and report.failed and call.when == "call" and isinstance(subject, Subject):
        sentence = sentence_of(item, error, Subject.last)
        if sentence is not None:
            report.sentence = sentence  # for the board
            report.longrepr = "\n".join(_explain(item, error, subject, sentence))
    return report


def sentence_of(item: pytest.Function, error: BaseException, call: Call | None) -> str | None:
    """What is wrong, or None where it is not the layer that failed but the test."""
    if isinstance(error, Mismatch):
        return error.sentence
    if call is not None and error is call.error:
        return f"raised {type(error).__name__}{_place(error, call)}: {_first_line(error)}".removesuffix(": ")
    if isinstance(error, hypothesis.errors.Flaky):
        return "the same call went right and then wrong: random numbers, or something that is kept between calls"
    if isinstance(error, pytest.fail.Exception):  # of pytest.raises
        return _first_line(error)
    if isinstance(error, AssertionError):
        return f"it is not so that {claim(item)}"
    if "does not require grad" in str(error):
        return "the result has no gradient: detach, no_grad, .data, .item() or NumPy has cut it off"
    if call is not None and call.subject.implementation.source:
        return f"the test could not use what came back: {type(error).__name__}: {_first_line(error)}"
    return None


def _explain(item: pytest.Function, error: BaseException, subject: Subject, sentence: str) -> Iterator[str]:
    call, case, picture = Subject.last, Case.last, None
    if call is not None:
        yield f"{subject.name} was called with {call!r}" + (f" [{case!r}]" if case else "")
    yield sentence
    if isinstance(error, Mismatch) and error.differing:
        actual, expected, wrong = error.differing
        # The contract names the axes of what the layer returns; a test may compare something else.
        returned = error.sentence.startswith("out")
        names = axes(subject.layer, wrong.ndim) if returned else [f"axis {i}" for i in range(wrong.ndim)]
        yield where(wrong, names) + (_only_in_dtypes(call) if call else "")
        if wrong.numel() > 1:
            path = FAILURES / (re.sub(r"\W+", "-", f"{subject.layer} {item.name}").strip("-") + ".png")
            picture = save_comparison(path, f"{subject.name}: {claim(item)}", expected, actual, names)
    bugs = diagnose(subject.layer, subject.fresh(), (call.args, call.kwargs)) if call else []
    if bugs:
        clauses = "; or when ".join(bug.clause.rstrip(".") for bug in bugs)
        yield f"Your output is exactly what you get when {clauses}."
    elif call and (bugs := behind_other_faults(subject.layer, subject.fresh(), call.given)):
        clauses = "; or when ".join(bug.clause.rstrip(".") for bug in bugs)
        yield f"Your values are what you get when {clauses}. That is not all that is wrong."
    elif isinstance(error, Mismatch) and error.look_at:
        yield f"Look at: {error.look_at}"
    yield f"Read {unit_test(subject.layer)}"
    yield f"Failed: {claim(item)}, {_line(item, error)}"
    if picture:
        yield f"Picture: {picture}"


def _only_in_dtypes(call: Call) -> str:
    """` (only in bfloat16)` where the same call is right in the widest dtype."""
    floats = [t.dtype for t in tensors((call.args, call.kwargs)) if t.is_floating_point()]
    if not floats:
        return ""
    right = getattr(RIGHT, call.subject.layer)
    wrong = [d for d in target.ALL if _is_wrong(call, d, call.subject.fresh()) and not _is_wrong(call, d, right)]
    if floats[0] not in wrong or target.ALL[0] in wrong:
        return ""
    return f" (only in {' and '.join(word(dtype) for dtype in wrong)})"


def _is_wrong(call: Call, dtype: torch.dtype, function: Layer) -> bool:
    """Whether `function` differs from the formula in the same call in this dtype. Over a large one loops take long."""

    def cast(leaf: Any) -> Any:
        return leaf.detach().to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = map_leaves(cast, (call.args, call.kwargs))
    try:
        actual, expected = (tensors(f(*args, **kwargs)) for f in (function, call.subject.formula))
        pairs = zip(actual, expected, strict=True)
        return any(bool(differences(a, e, call.subject.layer)[1].any()) for a, e in pairs)
    except Exception:  # it does not even get through the call
        return True


def _first_line(error: BaseException) -> str:
    try:
        return str(error).strip().partition("\n")[0]
    except Exception:  # an error of the layer's own, which cannot be printed
        return ""


def _line(item: pytest.Function, error: BaseException) -> str:
    """The line of the test that failed."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(item.path)]
    return f"{Path(item.location[0]).as_posix()}:{own[-1].lineno if own else (item.location[1] or 0) + 1}"


def _place(error: BaseException, call: Call) -> str:
    """` (rms_norm.py, line 3)`: the last line of the layer's own file."""
    file = call.subject.implementation.files.get(call.subject.layer)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
