"""The layer under test: a function that remembers how it was called, so that a failure can say so."""

import contextlib
import copy
import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import hypothesis
import jaxtyping
import torch
from torch import Tensor

from llama import implementation
from llama.implementation import Claims, Implementation, ImplementationError, Layer, map_leaves, tensors
from llama.layers import takes_tensors
from tests.cases import target
from tests.cases.calls import Arguments, calls_of
from tests.judge import python_values, results
from tests.judge.apart.outcomes import plain
from tests.judge.guards.borrowing import by_itself
from tests.judge.guards.endings import Refused, contained
from tests.judge.guards.surroundings import left_alone, refuse_changes
from tests.judge.results import Kept, copied, same, version


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without beartype, which takes as long as the loops: annotations are enforced where a layer is under test."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _judge(name: str) -> Implementation:
    return implementation.load(name).changed(lambda _, layer: unchecked()(layer))


# The judge. Always our own loops in float64, whatever is under test.
REFERENCE = _judge("naive")
# Whose gradients ours and others' are compared with: the formula written once in plain torch, in float64.
# That these are the derivatives of the values is what test_gradients.py of every_layer proves.
FORMULA = _judge("vectorized")


FEW = 12
"""So many numbers are shown in a call; of more, the shapes."""

LATE = "the result has changed after it was returned: a layer is done when it returns"


class Mismatch(AssertionError):
    """What is wrong, and where to look; where values differ: what came, what should have come, which are wrong."""

    def __init__(
        self, sentence: str, look_at: str = "", differing: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> None:
        super().__init__(f"{Subject.last.subject.name}: {sentence}" if Subject.last else sentence)
        self.sentence, self.look_at, self.differing = sentence, look_at, differing


@dataclass
class Call:
    subject: "Subject"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Arguments
    """Copies of the arguments from before the call, in memory that the layer has never held."""
    error: Exception | None = None
    result: Any = None
    autocast: str = ""
    """The dtype of autocast, where the call was made within it."""
    printed_before: int = 0
    """How many bytes stood in the captured output before the call."""

    def source(self) -> str:
        """The call as it can be pasted into Python, where its values are few; else nothing."""
        if sum(t.numel() for t in tensors(self.given)) > FEW:
            return ""
        if not self.subject.takes_tensors and len(repr(self)) > python_values.SHORT:
            return ""
        try:
            values = [_literal(value) for value in self.given[0]]
            values += [f"{name}={_literal(value)}" for name, value in self.given[1].items()]
        except ValueError:
            return ""
        return f"{self.subject.layer}({', '.join(values)})"

    def name_of(self, value: Any) -> str:
        """`out` where this is the result, `out[1]` or `grad_x` where it is a part of it, else nothing."""
        names = calls_of(self.subject.layer).results
        if value is self.result:
            return names[0] if len(names) == 1 else "out"
        parts = self.result if isinstance(self.result, list | tuple) else []
        called = names if len(names) == len(parts) > 1 else [f"out[{i}]" for i in range(len(parts))]
        return next((name for name, part in zip(called, parts, strict=True) if part is value), "")

    def __repr__(self) -> str:
        """`x[2, 4, 6] float32, weight[6] float32, eps=1e-05`."""
        return ", ".join(_describe(name, value) for name, value in self.named((self.args, self.kwargs)))

    def named(self, arguments: Arguments) -> list[tuple[str, Any]]:
        """The arguments with the names of the parameters."""
        args, kwargs = arguments
        try:
            names = list(inspect.signature(self.subject.function).parameters)
        except (TypeError, ValueError):
            names = []
        names += [f"argument {i}" for i in range(len(names), len(args))]
        return [*zip(names, args, strict=False), *kwargs.items()]


class Subject:
    """Calls one layer of one implementation."""

    last: ClassVar[Call | None] = None
    kept: ClassVar[Kept] = Kept()
    """Results of this test, whose memory no later call may write to."""

    def __init__(self, layer: str, implementation: Implementation):
        self.layer = layer
        self.implementation = implementation
        self.name = f"{layer} ({implementation.name})"
        self.function = getattr(implementation, layer)
        self.claims = implementation.claims.get(layer, Claims()).about(layer)

    def __repr__(self) -> str:
        return self.name

    @property
    def lacks(self) -> str:
        """Why there is nothing to test: it is a stub, or its file fails to import. Nothing where there is."""
        if self.layer in self.implementation.stubs:
            return f"{self.layer} is not written yet"
        return self.implementation.unloaded.get(self.layer, "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._leave_out_what_is_not_claimed(args, kwargs)
        args, kwargs = self.claims.trimmed(self.layer, args, kwargs)
        Subject.last = call = Call(self, args, kwargs, map_leaves(copied, (args, kwargs)))
        call.printed_before = _position(sys.stdout)
        if torch.is_autocast_enabled(target.DEVICE.type):
            call.autocast = word(torch.get_autocast_dtype(target.DEVICE.type))
        Subject.kept.forget_what_is_written()
        leaves, versions = _leaves((args, kwargs)), _versions(args, kwargs)
        try:
            result = self._run(self.function, args, kwargs)
        except Refused as refused:
            raise Mismatch(str(refused)) from None
        except Exception as error:
            call.error = error
            raise
        if result is None:
            raise Mismatch(
                f"out must be {'a tensor' if self.takes_tensors else 'a value'}, got None: is there a return?"
            )
        if not self.takes_tensors:
            self._take_python_values(call, result)
            return result
        after = _leaves((args, kwargs))
        if _versions(args, kwargs) != versions or not all(map(_unchanged, leaves, after, _leaves(call.given))):
            raise Mismatch(
                "an argument was changed: `x = x + y` makes a new tensor; `x += y` and x.add_(y) write over the old one"
            )
        if len(after) != len(leaves):
            raise Mismatch("an argument was changed: a list or a mapping has lost or gained an entry")
        if problem := self._problem(result, (args, kwargs)):
            raise Mismatch(problem)
        self._keep(result)
        call.result = results.with_number(result, calls_of(self.layer).number)
        if "no strides" in self.claims.words:  # no upstream gradient has others, such as that of a sum
            for part in tensors([result]):
                if part.requires_grad:
                    part.register_hook(Tensor.contiguous)
        return call.result

    @property
    def takes_tensors(self) -> bool:
        return takes_tensors(self.layer)

    def _take_python_values(self, call: Call, result: Any) -> None:
        """As with tensors: arguments and earlier results stay as they are, and the result is a new and plain one."""
        given, (args, kwargs) = [*call.args, *call.kwargs.values()], call.given
        if any(map(python_values.changed, given, [*args, *kwargs.values()])):
            raise Mismatch("an argument was changed: work on a copy, list(ids) or dict(words)")
        if problem := self._problem(result, (call.args, call.kwargs)):
            raise Mismatch(problem)
        self._keep(result)
        call.result = result

    def _leave_out_what_is_not_claimed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """End the test, or this one of its examples, where the call needs what the layer does not claim."""
        if not self.claims:
            return
        reason = self.claims.refusal(self.layer, args, kwargs)
        if not reason and any(map(target.is_rounded, tensors((args, kwargs)))):
            reason = "float32"
        if reason and hypothesis.currently_in_test_context():
            target.NARROWED.add(reason)
            hypothesis.reject()
        if reason:
            raise target.NotClaimed(reason)

    def _run(self, function: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that ends nothing but itself and changes nothing around it; raises Refused where it tries to."""
        own = by_itself(self.layer) if self.is_written_by_another else contextlib.nullcontext()
        with left_alone("the layer"), contained("the layer"), own:
            return plain(function(*args, **kwargs))

    @property
    def is_written_by_another(self) -> bool:
        """Whether it comes from a file of another, and runs here; what it leaves to us we compose."""
        of_another = bool(self.implementation.source) and self.implementation.defines(self.layer)
        return of_another and not self.implementation.is_apart

    def _problem(self, result: Any, given: Arguments) -> str:
        """What is wrong with a result, whatever its values."""
        args, kwargs = given
        if not self.takes_tensors:
            return python_values.problem(result, [*args, *kwargs.values()])
        return results.problem(result, tensors(given), calls_of(self.layer).may_return_arguments)

    def _keep(self, result: Any) -> None:
        Subject.kept.add(result)
        if Subject.kept.changed():
            raise Mismatch("an earlier result has changed: each call needs memory of its own")

    def end(self) -> None:
        """At the end of a test: what nobody has looked at since the last call is looked at."""
        try:
            refuse_changes("the layer")
        except Refused as refused:
            raise Mismatch(str(refused)) from None
        Subject.kept.forget_what_is_written()
        if Subject.kept.changed():
            raise Mismatch(LATE)

    @classmethod
    def refuse_late_writing(cls) -> None:
        """Before a result is compared: it must be what came back when the call ended."""
        if cls.kept.last_changed():
            raise Mismatch(LATE)

    def fresh(self) -> Layer:
        """The same function from its file once more, which has kept nothing from earlier calls; with the same guards.

        It raises Refused where its result is not what a layer may return.
        """
        function = self.function
        if self.implementation.source:
            with contextlib.suppress(Refused, ImplementationError), left_alone("the layer"), contained("the layer"):
                function = self.implementation.reloaded(self.layer)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = self._run(function, args, kwargs)
            if problem := self._problem(result, ((), {})):
                raise Refused(problem)
            return result

        return call

    def anew(self) -> "Subject":
        """The same layer with nothing kept from earlier calls."""
        new = copy.copy(self)
        new.function = self.fresh()
        return new

    def expected(self, *args: Any, **kwargs: Any) -> Any:
        """What the naive loops make of the same arguments, in float64 on the CPU."""
        return getattr(REFERENCE, self.layer)(*exact(args), **exact(kwargs))

    def formula(self, *args: Any, **kwargs: Any) -> Any:
        """What plain torch makes of the same arguments, in float64 on the CPU."""
        return getattr(FORMULA, self.layer)(*exact(args), **exact(kwargs))


def _position(stream: Any) -> int:
    """Where a stream that pytest captures has got to; 0 where nobody captures it."""
    try:
        return int(stream.tell())
    except (OSError, ValueError, AttributeError):  # a terminal, or a stream that is closed
        return 0


def _literal(value: Any) -> str:
    """The source of a value. Raises ValueError where that would be long."""
    if isinstance(value, Tensor):
        numbers = map_leaves(lambda number: _number(number, value.dtype), value.tolist())
        text = repr(numbers).replace("'", "")
        usual = value.dtype in (torch.float32, torch.int64, torch.bool) and value.numel()
        return f"torch.tensor({text})" if usual else f"torch.tensor({text}, dtype={value.dtype})"
    if value is None or isinstance(value, bool | int | float | bytes):
        return repr(value)
    if isinstance(value, dict) and not tensors(value):
        return repr(value)
    if isinstance(value, list | tuple):
        parts = [_literal(part) for part in value]
        return f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)})"
    raise ValueError(value)


def _number(number: Any, dtype: torch.dtype) -> str:
    """The shortest numeral that is this number in that dtype."""
    if not isinstance(number, float):
        return repr(number)
    if not math.isfinite(number):
        return f"{'-' if number < 0 else ''}torch.{'nan' if math.isnan(number) else 'inf'}"
    shortest = (float(f"{number:.{digits}g}") for digits in range(1, 18))
    return repr(next(near for near in shortest if torch.tensor(near, dtype=dtype).item() == number))


def _versions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """How often each tensor among the arguments has been written to, as torch counts it."""
    return [version(tensor) for tensor in tensors((args, kwargs))]


def _unchanged(before: Any, after: Any, copied: Any) -> bool:
    """Whether an argument is the same object as before, and a tensor holds what it held."""
    return before is after and (not isinstance(after, Tensor) or same(after, copied))


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    map_leaves(found.append, tree)
    return found


def exact(tree: Any) -> Any:
    """The same arguments as the judge takes them: floats in float64, on the CPU."""
    return map_leaves(_exact, tree)


def _exact(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    leaf = leaf.detach().cpu()
    return leaf.double() if leaf.is_floating_point() else leaf


def word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _describe(name: str, value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.is_contiguous() else " not contiguous"
        return f"{name}{list(value.shape)} {word(value.dtype)}{layout}"
    if isinstance(value, list | dict) and (count := len(tensors(value))):
        return f"{name} of {count} tensors"
    return f"{name}={_abridged(value)}"


def _abridged(value: Any) -> str:
    """A list, a mapping or bytes whole where they are short, else their beginning and their length."""
    text = repr(value)
    if not isinstance(value, list | dict | bytes) or len(text) <= python_values.SHORT:
        return text
    return f"{text[: python_values.SHORT // 2]}... ({len(value)} in all)"
