"""Where the time of a training step goes: data, forward, backward, optimizer, and torch's costliest operators."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

WARM_UP, STEPS = 3, 10


class Stopwatch:
    """Seconds of each part of a step, which may come several times: `with watch("forward"): ...`."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def _wait(self) -> None:
        """An accelerator is given work and does it later; its time counts where the work was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def report(step: Callable[[Any], object], device: torch.device, tokens: int, unit: str) -> None:
    """Run `step(watch)`, which times its parts, and print where its time goes; `tokens`, each a `unit`, are those of
    one step."""
    for _ in range(WARM_UP):
        step(Stopwatch(device))
    watches = [Stopwatch(device) for _ in range(STEPS)]
    for watch in watches:
        step(watch)
    parts = {part: median(watch.seconds[part] for watch in watches) for part in watches[0].seconds}
    whole = sum(parts.values())
    rate = f"{tokens / whole:,.0f} {unit}s/s"
    print(f"\nA step takes {whole * 1e3:.1f} ms (the sum of its parts, each the median of {STEPS}), {rate}")
    for part, seconds in parts.items():
        print(f"  {part:<12} {seconds * 1e3:8.1f} ms  {seconds / whole:5.0%}")

    kinds = {ProfilerActivity.CPU} | ({ProfilerActivity.CUDA} if device.type == "cuda" else set())
    with profile(activities=kinds) as recorded:
        step(Stopwatch(device))
    events = sorted(recorded.key_averages(), key=_own, reverse=True)
    total = sum(map(_own, events))
    print("\nThe costliest operators of one step")
    for event in events[:12]:
        print(f"  {event.key[:44]:<44} {_own(event) / 1e3:8.1f} ms  {_own(event) / total:5.0%}  {event.count:5} calls")


def _own(event: Any) -> float:
    """Microseconds in the operator itself, on the accelerator where there is one."""
    return event.self_device_time_total or event.self_cpu_time_total
