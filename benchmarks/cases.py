"""From the description of a layer's benchmark to cells, and from a cell to a number.

    bench_silu = layer("silu", "n", (16, 256, 4096), {"batch": 1, "seq": 256}, moved=lambda c: 2 * c.seq * c.n)

is a function that pytest finds, and runs once per cell: a size, a dtype, a pass and a column, which is the
implementation that is called. The columns of one size stand next to each other, so that a machine that slows
down slows all of them.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks import refusal
from benchmarks.machine import Machine, PeakMemory
from llama.implementation import OURS, Claims, Implementation, load, map_leaves, tensors
from llama.machine.device import multiplies_bfloat16
from tests.cases import calls
from tests.cases.case import Case
from tests.judge.subject import FORMULA

FORWARD, BOTH = "forward", "forward+backward"
AUTOGRAD = "autograd"
"""The column that a gradient by hand is set beside."""
HALF_AND_SINGLE = (torch.float32, torch.bfloat16)
MULTIPLIED = HALF_AND_SINGLE if multiplies_bfloat16(torch.device("cpu")) else (torch.float32,)
"""What products are measured in. Imitated, one in bfloat16 takes a hundred times as long, and nobody would use it."""

FUSED = load("fused")
Run = Callable[..., Any]
# From the arguments of the layer to a call without any. All that is made once in a program is made outside that call.
Peer = Callable[..., Run]
Formula = Callable[[Case], float]


@dataclass(frozen=True)
class Work:
    """What one call has to do at least, in FLOP (then a matrix product is the limit) or in bytes (then a copy)."""

    amount: float
    unit: str
    tokens: int = 0
    """The tokens of one call, where they are what counts."""


class Prepared(NamedTuple):
    """A call of one argument that it changes, and what makes that anew each time, which is not timed."""

    call: Run
    argument: Callable[[], Any]


class Contents(NamedTuple):
    """What lies in the arguments of a cell."""

    change: Callable[[], None]
    """Writes other numbers into the same tensors: a layer that looks its result up looks in the wrong place."""
    idle: Callable[[], None]
    """Writes as much elsewhere."""
    expected: Callable[[], Any]
    """What `vectorized` makes of what is there now."""


@dataclass(frozen=True)
class Cell:
    """One number of a table: what is called how, and its size along one axis."""

    layer: str
    column: str
    dtype: str
    passes: str
    along: str
    size: int
    work: Work
    prepare: "Callable[[], Run | Prepared]" = field(repr=False)
    reference: bool = False
    """A peer: it stays the same when our code changes."""
    memory: bool = False
    """Whether its memory is measured too."""
    rounds: int = 0
    """Calls, where pytest-benchmark is not to choose them."""
    warm_up: bool = True
    """Whether a call goes before those that are measured."""
    contents: "Contents | None" = field(default=None, repr=False)
    """What lies in the arguments, where the layer's result is checked."""

    def __str__(self) -> str:
        # A colon, which -k can be given: `-k "n:64-float32"`.
        return f"{self.along}:{self.size}-{self.dtype}-{self.passes}-{self.column}"

    @property
    def group(self) -> str:
        return f"{self.layer} {self.along}={self.size} {self.dtype} {self.passes}"

    @property
    def name(self) -> str:
        return f"{self.layer} ({self.column}) [{self.along}={self.size} {self.dtype} {self.passes}]"


def measure(cell: Cell, benchmark: Any, machine: Machine) -> None:
    """Time the cell, and note beside the time what the report needs."""
    peak = PeakMemory()
    benchmark.group = cell.group
    with torch.set_grad_enabled(cell.passes == BOTH):
        prepared = cell.prepare()
        call, argument = prepared if isinstance(prepared, Prepared) else (prepared, None)
        given = (argument(),) if argument else ()
        single = cell.rounds == 1  # too long for another call that measures its memory
        result = None
        if cell.warm_up:
            with peak if cell.memory and not single else contextlib.nullcontext():
                result = call(*given)
            if cell.contents and cell.column not in OURS:
                _refuse_wrong(cell, benchmark, result)
            if cell.contents:
                cell.contents.change()
        if single:
            with peak:
                result = benchmark.pedantic(call, given)
        elif cell.rounds:
            setup: Run | None = (lambda: ((argument(),), {})) if argument else None
            result = benchmark.pedantic(call, setup=setup, rounds=cell.rounds)
        else:
            result = benchmark(call)
        if not cell.reference:
            _refuse_nonsense(cell, benchmark, machine, call, result)
    benchmark.extra_info |= {
        **{name: getattr(cell, name) for name in ("layer", "column", "dtype", "passes", "along", "size", "reference")},
        **asdict(cell.work),
        "limit": machine.limit(cell.work.unit, cell.dtype),
        "peak": peak.bytes,
    }


def _refuse_wrong(cell: Cell, benchmark: Any, result: Any) -> None:
    """Raises Nonsense for a layer whose first result is wrong, and keeps its number out of the report."""
    assert cell.contents is not None
    try:
        refusal.check_right(cell.name, cell.layer, result, cell.contents.expected())
    except refusal.Nonsense:
        benchmark.has_error = True
        raise


def _refuse_nonsense(cell: Cell, benchmark: Any, machine: Machine, call: Run, result: Any) -> None:
    """Raises Nonsense, and keeps the number out of the report."""
    seconds = benchmark.stats.stats.median if benchmark.stats else 0.0  # none with --benchmark-disable
    try:
        if cell.contents:
            refusal.check_result(cell.name, result, cell.contents.expected())
        if seconds and cell.contents:
            refusal.check_fresh(cell.name, call, cell.contents.change, cell.contents.idle, seconds)
        if seconds:
            refusal.check_rate(cell.name, cell.work.amount, cell.work.unit, cell.dtype, seconds, machine)
    except refusal.Nonsense:
        benchmark.has_error = True
        raise


def layer(
    name: str,
    along: str,
    sizes: Sequence[int],
    others: Mapping[str, int],
    *,
    flops: Formula | None = None,
    moved: Formula | None = None,
    backward: float | None = None,
    naive: int = 0,
    arguments: Callable[[Case], calls.Arguments] | None = None,
    peers: Mapping[str, Peer] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
) -> Callable[..., None]:
    """The benchmark of one layer, over `sizes` of one axis while the `others` stay.

    `flops` is the FLOP of a forward pass, or `moved` the elements it has to read and write. A backward pass takes
    `backward` times that: 2 for products, each of which has two in its gradient; 1.5 for what is moved, since a
    gradient reads two and writes one where the layer read one and wrote one. The naive loops run up to the size
    `naive`, within a second. Arguments are typical ones, as in the tests, where none are given.
    """
    make = arguments or functools.partial(calls.arguments, name)
    differentiable = bool(calls.calls_of(name).gradients)
    dtypes = dtypes or (MULTIPLIED if flops else HALF_AND_SINGLE)
    back = backward if backward is not None else (2.0 if flops else 1.5)

    def case(size: int, dtype: torch.dtype, seed: int = 0) -> Case:
        return Case({**others, along: size}, dtype, seed)

    def work(case: Case, passes: str) -> Work:
        times = 1 + (back if passes == BOTH else 0)
        if flops is not None:
            return Work(times * flops(case), "flop")
        return Work(times * moved(case) * case.dtype.itemsize if moved else 0.0, "byte")

    def cells(columns: Sequence[Implementation]) -> Iterator[Cell]:
        # The columns of one size share their arguments, which are let go for the next.
        given = functools.lru_cache(maxsize=1)(lambda size, dtype: _arguments(name, make, case(size, dtype)))
        other = functools.lru_cache(maxsize=1)(
            lambda size, dtype: _Others(given(size, dtype), make(case(size, dtype, calls.SAME_FLAGS)))
        )

        def contents(size: int, dtype: torch.dtype, passes: str) -> Contents:
            right = functools.partial(functools.partial, getattr(FORMULA, name))
            return Contents(
                lambda: other(size, dtype).change(),
                lambda: other(size, dtype).idle(),
                lambda: _call(right, lambda: given(size, dtype), passes)(),
            )

        for size in sizes:
            for dtype in dtypes:
                for passes in (FORWARD, BOTH) if differentiable else (FORWARD,):
                    for column, peer, reference in _columns(name, columns, peers or {}):
                        if column == "naive" and (size > naive or dtype == torch.bfloat16 or passes == BOTH):
                            continue  # it computes in float64 whatever comes in, and has no gradient
                        yield Cell(
                            layer=name,
                            column=column,
                            dtype=_name(dtype),
                            passes=passes,
                            along=along,
                            size=size,
                            work=work(case(size, dtype), passes),
                            prepare=functools.partial(_call, peer, functools.partial(given, size, dtype), passes),
                            reference=reference,
                            memory=size in sorted(sizes)[-2:] and column != "naive",
                            contents=None if reference or column == "naive" else contents(size, dtype, passes),
                        )

    return benchmark_of(cells)


def benchmark_of(cells: Callable[[Sequence[Implementation]], Iterator[Cell]]) -> Callable[..., None]:
    """A function for pytest to find, that measures each of these cells."""

    def bench(cell: Cell, benchmark: Any, machine: Machine) -> None:
        measure(cell, benchmark, machine)

    bench.cells = cells  # type: ignore[attr-defined]
    return bench


def installed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose package is there: `torch.nn`, `transformers`; autograd is a part of torch."""
    packages = {name: "torch" if name == AUTOGRAD else name.partition(".")[0] for name in columns}
    return {name: peer for name, peer in columns.items() if importlib.util.find_spec(packages[name])}


def loaded(make: Callable[[], nn.Module], **weights: Tensor) -> nn.Module:
    """The module with these very tensors as its parameters, so that gradients reach them."""
    with torch.device("meta"):
        module = make()
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval()


def autograd(name: str) -> Peer:
    """What a gradient by hand is compared with: the fused layer and torch's backward pass, from the same arguments."""

    def peer(*args: Any, **kwargs: Any) -> Run:
        forward = calls.calls_of(name).forward
        assert forward is not None
        function, at, grad = forward(FUSED, *args, **kwargs)
        leaves = [t.detach().requires_grad_() for t in at]

        def run() -> Any:
            with torch.enable_grad():
                return torch.autograd.grad(function(*leaves), leaves, grad)

        return run

    return peer


def _columns(
    name: str, columns: Sequence[Implementation], peers: Mapping[str, Peer]
) -> Iterator[tuple[str, Peer, bool]]:
    for i in columns:
        if name in i.layers and name not in i.stubs | i.unloaded.keys():
            yield i.name, functools.partial(_claimed, name, i), False
    for column, peer in installed(peers).items():
        yield column, peer, True


def _claimed(name: str, of: Implementation, *args: Any, **kwargs: Any) -> Run:
    """The call of that layer, where its author claims it (see llama/implementation/claims.py)."""
    claims = of.claims.get(name, Claims()).about(name)
    if reason := claims.refusal(name, args, kwargs):
        pytest.skip(f"{of.name} does not claim {reason}")
    args, kwargs = claims.trimmed(name, args, kwargs)
    return functools.partial(of.layers[name], *args, **kwargs)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _arguments(
    name: str, make: Callable[[Case], calls.Arguments], case: Case
) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
    """The arguments, and those tensors among them that have a gradient, as parameters."""
    args, kwargs = make(case)
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            leaves.append(nn.Parameter(value))
            return leaves[-1]
        return value

    of = calls.calls_of(name).gradients
    return tuple(map_leaves(leaf, a) if i in of else a for i, a in enumerate(args)), kwargs, leaves


class _Others:
    """Other numbers of the same sizes for the same tensors: what lies there, and what is to lie there next."""

    def __init__(self, given: Any, other: calls.Arguments):
        args, kwargs, _ = given
        pairs = zip(tensors((args, kwargs)), tensors(other), strict=True)
        # Only floats: what is made of positions, such as a table, may be kept while they are the same. Twice as large
        # where any size is allowed, or a mean over many of them would hardly differ.
        self.pairs = [(t, 2 * o if t.requires_grad else o) for t, o in pairs if t.is_floating_point()]

    @torch.no_grad()
    def change(self) -> None:
        for tensor, other in self.pairs:
            before = tensor.clone()
            tensor.copy_(other)
            other.copy_(before)

    @torch.no_grad()
    def idle(self) -> None:
        for tensor, other in self.pairs:
            before = tensor.clone()
            torch.empty_like(tensor).copy_(other)
            torch.empty_like(other).copy_(before)


def _cotangent(out: Tensor) -> Tensor:
    """1, 2, 1, 2 and so on, whatever the order of the other axes: of ones alone, softmax makes only roundings."""
    if out.ndim == 0:
        return torch.ones_like(out)
    row = torch.ones(out.shape[-1], dtype=out.dtype)
    row[1::2] = 2
    return row.expand_as(out).contiguous()


def _call(peer: Peer, given: Callable[[], Any], passes: str) -> Run:
    args, kwargs, leaves = given()
    forward = peer(*args, **kwargs)
    if passes == FORWARD:
        return forward
    out = forward()
    if not (out[0] if isinstance(out, tuple) else out).requires_grad:
        pytest.skip("its result has no gradient")
    cotangent = map_leaves(_cotangent, out)
    return lambda: torch.autograd.grad(forward(), leaves, cotangent)
