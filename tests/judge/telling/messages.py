"""What a failing test says: never a dump of tensors, but what a person would want to be told.

    Failed: eps is added to the mean square inside the root, tests/unit/model/test_rms_norm.py:36
    Read: tests/unit/model/test_rms_norm.py
    Picture: out/failures/rms_norm-test_eps_is_added_to_the_mean_square_inside_the_root-my_llama.png
    out = rms_norm(torch.tensor([[2.0, 2.0]]), torch.tensor([1.0, 1.0]), eps=3.0)
    out[0, 0] is 0.25 but should be 0.5; all 2 elements are wrong
    Your output is exactly what you get when eps is added outside the square root.
    Tempting: the formula is often read aloud as "divide by the root mean square, plus eps".

The answer comes last, so that it stands just above the prompt. Hypothesis' report is left out: the sizes, the dtype and
the seed of its smallest example stand beside the call.
"""

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis.errors
import pytest
import torch

from llama.implementation import Layer, map_leaves, tensors
from llama.kata.board import unit_test
from tests.cases import target
from tests.cases.calls import calls_of
from tests.cases.case import Case
from tests.judge.assertions import differences
from tests.judge.guards.endings import Refused
from tests.judge.items import claim, subject_of
from tests.judge.subject import Call, Mismatch, Subject, word
from tests.judge.telling.diagnosis import RIGHT, behind_other_faults, diagnose, lesser_faults, repaired
from tests.judge.telling.errors import in_words
from tests.judge.telling.locations import axes, where
from tests.judge.telling.pictures import draw_later, picture_of
from tests.judge.tolerances import tolerance
from tests.zoo import Bug


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    error, subject = (call.excinfo.value if call.excinfo else None), subject_of(item)
    if error is not None and report.failed and call.when == "call" and isinstance(subject, Subject):
        sentence = sentence_of(item, error, Subject.last)
        if sentence is not None:
            report.sentence = sentence  # for the board
            if not _is_to_be_explained(item, subject):
                report.longrepr = sentence
                return report
            case = Case.last  # before others are asked the same, in cases of their own
            cause = find_cause(subject, Subject.last)
            report.cause, report.bugs = cause.sentence, list(cause.bugs)
            report.longrepr = "\n".join(_explain(item, error, sentence, cause, case))
            report.sections = _last_words(report.sections)
    return report


_EXPLAINED = pytest.StashKey[set[tuple[str, str]]]()
"""The layers of which a failure has been explained."""


def _is_to_be_explained(item: pytest.Item, subject: Subject) -> bool:
    """Every failure that a person reads; of a record, which nobody reads as it grows, the first of each layer."""
    explained = item.config.stash.setdefault(_EXPLAINED, set())
    one = subject.implementation.name, subject.layer
    again = one in explained
    explained.add(one)
    return not (again and item.config.getoption("record"))


def sentence_of(item: pytest.Function, error: BaseException, call: Call | None) -> str | None:
    """What is wrong, or None where it is not the layer that failed but the test."""
    if isinstance(error, Mismatch):
        return error.sentence
    if isinstance(error, Refused):
        return str(error)
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
    if "'float' object has no attribute" in str(error):
        return "the result is a Python float, which has no gradient: return a tensor, without .item() or float()"
    if call is not None and call.subject.implementation.source:
        return f"the test could not use what came back: {type(error).__name__}: {_first_line(error)}"
    return None


def _explain(
    item: pytest.Function, error: BaseException, sentence: str, cause: "Cause", case: Case | None
) -> Iterator[str]:
    subject, call = subject_of(item), Subject.last
    assert isinstance(subject, Subject)
    yield f"Failed: {claim(item)}, {_line(item, error)}"
    yield f"Read: {unit_test(subject.layer)}"
    differing = error.differing if isinstance(error, Mismatch) else None
    # The contract names the axes of what the layer returns; a test may compare something else.
    part = next((i for i, name in enumerate(calls_of(subject.layer).results) if sentence.startswith(name)), None)
    names = axes(subject.layer, differing[2].ndim, part) if differing and part is not None else []
    if differing and differing[2].numel() > 1:
        actual, expected, wrong = differing
        names = names or [f"axis {i}" for i in range(wrong.ndim)]
        title, path = f"{subject.name}: {claim(item)}", picture_of(item, subject.layer)
        yield f"Picture: {draw_later(path, title, expected, actual, names, call)}"
    yield from _what_happened(subject, call, case, sentence, where(differing[2], names) if differing else "")
    # What the rules that hold for every layer ask to look at is meant for a layer that is right otherwise.
    general = "every_layer" in item.path.parts and call is not None and bool(differing) and _is_plainly_wrong(call)
    yield from _why(error, subject, call, cause, "" if general else getattr(error, "look_at", ""))


def _what_happened(
    subject: Subject, call: Call | None, case: Case | None, sentence: str, where_wrong: str
) -> Iterator[str]:
    """The call, and what is wrong in it: in one line where the call is short and has one result."""
    tail = f"; {where_wrong}" if where_wrong else ""
    if call is None:
        yield sentence + tail
        return
    if call.autocast:
        yield f"Within torch.autocast, where products of matrices are computed in {call.autocast}:"
    source = call.source()
    names = calls_of(subject.layer).results
    only = len(names) == 1 and re.match(rf"{names[0]}(?:\[0(?:, 0)*\])? (is .+? but should be .*)", sentence)
    if source and only and not tail:
        yield f"{source} {only[1]}"
        return
    if source:
        yield f"{', '.join(names)} = {source}"
    else:
        yield f"{subject.name} was called with {call!r}" + (f" [{case!r}]" if case else "")
    yield sentence + tail


def _why(error: BaseException, subject: Subject, call: Call | None, cause: "Cause", look_at: str) -> Iterator[str]:
    """The cause, as far as it is found, and what else is wrong."""
    if call and error is call.error:
        with contextlib.suppress(Exception):  # of what the layer holds at that place, which may be anything
            yield from in_words(error, set(subject.implementation.files.values()))
    if call and isinstance(error, Mismatch) and error.differing and not cause.bugs:
        of_dtypes = list(_only_in_dtypes(call))
        look_at = "" if of_dtypes else look_at  # the test's own advice is for what is wrong in any dtype
        yield from of_dtypes
    if cause.sentence:
        yield cause.sentence
    if look_at and not cause.bugs:
        yield f"Look at: {look_at}"
    if cause.tempting:
        yield f"Tempting: {cause.tempting}"
    if cause.besides:
        yield f"Besides: {cause.besides}."


@dataclass(frozen=True)
class Cause:
    sentence: str = ""
    bugs: tuple[str, ...] = ()
    tempting: str = ""
    besides: str = ""
    """What else is wrong."""


def find_cause(subject: Subject, call: Call | None) -> Cause:
    """What the layer does wrong, as far as it is known: a bug, a bug among other faults, or a change that mends it."""
    if call is None:
        return Cause()
    with _silent(), contextlib.suppress(Exception):  # of results that nothing can be done with, nothing is said
        layer, function = subject.layer, subject.fresh()
        if bugs := diagnose(layer, function, (call.args, call.kwargs)):
            if call.error is not None:
                return _named(bugs, "Your layer behaves exactly as when {}.")
            return _named(bugs, "Your output is exactly what you get when {}.")
        if bugs := behind_other_faults(layer, function, call.given):
            cause = _named(bugs, "Your values are what you get when {}. That is not all that is wrong.")
            return replace(cause, besides="; ".join(lesser_faults(layer, function, bugs[0])))
        return Cause(repaired(layer, function, call.given))
    return Cause()


def _named(bugs: list[Bug], sentence: str) -> Cause:
    clauses = "; or when ".join(bug.clause.rstrip(".") for bug in bugs)
    return Cause(sentence.format(clauses), tuple(bug.name for bug in bugs), bugs[0].tempting if len(bugs) == 1 else "")


def _last_words(sections: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What the layer printed in the call that failed, once: a search for examples calls it many times."""
    call = Subject.last
    return [
        (
            title,
            text.encode()[call.printed_before :].decode(errors="replace") if call and "stdout call" in title else text,
        )
        for title, text in sections
    ]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """While a layer is asked what it does, it says nothing and stops nowhere."""
    hook, sys.breakpointhook = sys.breakpointhook, lambda *args, **kwargs: None
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        sys.breakpointhook = hook


def _only_in_dtypes(call: Call) -> Iterator[str]:
    """What it means where the same call is right in some dtypes."""
    floats = [t.dtype for t in tensors((call.args, call.kwargs)) if t.is_floating_point()]
    if not floats:
        return
    right = getattr(RIGHT, call.subject.layer)
    with _silent():
        wrong = [d for d in target.ALL if _is_wrong(call, d, call.subject.fresh()) and not _is_wrong(call, d, right)]
    if floats[0] not in wrong or len(wrong) == len(target.ALL):
        return
    where = f"The same call is wrong in {' and '.join(word(dtype) for dtype in wrong)} alone"
    if wrong == [torch.float64]:
        yield f"{where}: something in it is computed in float32."
    elif not {torch.float64, torch.float32} & set(wrong):
        yield f"{where}: sums and what they are made of belong in float32 there, and the result in the dtype of x."


def _is_plainly_wrong(call: Call) -> bool:
    """Whether the layer, loaded anew, is wrong in this call alone."""
    floats = [t.dtype for t in tensors((call.args, call.kwargs)) if t.is_floating_point()]
    with _silent():
        return bool(floats) and _is_wrong(call, floats[0], call.subject.fresh())


def _is_wrong(call: Call, dtype: torch.dtype, function: Layer) -> bool:
    """Whether `function` differs from the formula in the same call in this dtype. Over a large one loops take long."""

    def cast(leaf: Any) -> Any:
        return leaf.detach().to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = map_leaves(cast, (call.args, call.kwargs))
    try:
        actual, expected = (tensors(f(*args, **kwargs)) for f in (function, call.subject.formula))
        within = tolerance(dtype, call.subject.layer)
        pairs = zip(actual, expected, strict=True)
        return any(bool(differences(a, e, within=within if a.is_floating_point() else None)[1].any()) for a, e in pairs)
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
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in getattr(error, "frames", frames) if frame[0] == file]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
