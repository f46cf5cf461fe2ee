"""What this machine reaches in this run, and how much memory a call takes beyond what there is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

COPIED = 2**27
"""Bytes that the copy reads and writes, more than a cache holds."""


@dataclass(frozen=True)
class Machine:
    """Its own matrix product, in FLOP/s by dtype, and its copy, in bytes read and written per second."""

    products: dict[str, float]
    copy: float

    def limit(self, unit: str, dtype: str) -> float:
        """What it reaches of FLOP of that dtype or of bytes, per second; 0 where it was not measured."""
        return self.copy if unit == "byte" else self.products.get(dtype, 0.0)

    def __str__(self) -> str:
        products = ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in self.products.items())
        return f"matrix product {products}, copy {self.copy / 1e9:.0f} GB/s"


def measured(n: int = 1024) -> Machine:
    """The best of several: an interruption only ever takes time."""
    products = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, out = torch.ones(n, n, dtype=dtype), torch.empty(n, n, dtype=dtype)
        products[str(dtype).removeprefix("torch.")] = 2 * n**3 / _shortest(lambda: torch.mm(a, a, out=out))  # noqa: B023
    source = torch.ones(COPIED // 8)
    target = torch.empty_like(source)
    return Machine(products, 2 * source.nbytes / _shortest(lambda: target.copy_(source)))


def _shortest(run: Callable[[], object], rounds: int = 6, seconds: float = 1.0) -> float:
    """Of so many rounds, or of as many as begin within the time: a product that is imitated takes a second or two."""
    times: list[float] = []
    while len(times) < rounds and sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


class PeakMemory:
    """`with PeakMemory() as peak: call()`; then `peak.bytes` is the most that was held at once beyond the start.

    Counted by torch's allocator, so also what a kernel takes within; not what another library takes by itself,
    such as NumPy.
    """

    bytes = 0

    def __enter__(self) -> "PeakMemory":
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(*error)
        profiler: Any = self._profile.profiler
        events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
        held = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            self.bytes = max(self.bytes, held)
