"""What kernels do with memory and with gradients, for the bugs, and the calls that show it, for `probes()`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.cases import target


def as_if_contiguous(t: Tensor) -> Tensor:
    """As many elements as `t` has, in the order of its memory, from where `t` begins.

    Where the memory ends it is read from there again; a kernel would go on reading what is not its own.
    """
    if t.is_contiguous() or t.numel() == 0:
        return t
    behind = t.untyped_storage().nbytes() // t.element_size() - t.storage_offset()
    memory = t.as_strided((min(behind, t.numel()),), (1,))
    return memory[torch.arange(t.numel(), device=t.device) % len(memory)].view(t.shape)


def with_gradient(t: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The same tensor, whose gradient is changed on its way back: that of a result, or of an argument."""
    if not t.requires_grad:
        return t
    t = t.view_as(t)
    t.register_hook(change)
    return t


def gradients(
    make: Callable[[], Sequence[Any]], of: Sequence[int] = (0,), transposed: bool = False, times: int = 1
) -> Callable[[Callable[..., Any]], Any]:
    """A probe: the gradients of the arguments `of` those that `make` returns, `times` times, each time larger."""

    def probe(layer: Callable[..., Any]) -> Any:
        args = [a.detach().requires_grad_() if i in of else a for i, a in enumerate(_new(make()))]
        y = layer(*args)
        if not y.requires_grad:
            return [y, None]
        towards = torch.linspace(1, 3, y.numel(), dtype=y.dtype, device=y.device)
        leaves, found = [args[i] for i in of], [y.detach().clone()]
        for factor in range(1, times + 1):
            # The gradient of a transposed result is transposed itself.
            seen = y.mT if transposed else y
            total = factor * (seen * towards.view(seen.shape)).sum()
            found += [
                None if g is None else g.clone()
                for g in torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
            ]
        return found

    return probe


def again(
    make: Callable[[], Sequence[Any]], change: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """A probe: two calls with the same objects, which `change` changes in between; both results are looked at then."""

    def probe(layer: Callable[..., Any]) -> Any:
        args = _new(make())
        first = layer(*args)
        other = args if change is None else change(*args) or args
        return [layer(*other), first]

    return probe


def within(context: Callable[[], Any], make: Callable[[], Sequence[Any]]) -> Callable[[Callable[..., Any]], Any]:
    """A probe: a call within that context, such as autocast or no_grad."""

    def probe(layer: Callable[..., Any]) -> Any:
        with context():
            y = layer(*_new(make()))
        return [y.detach().float(), y.requires_grad]

    return probe


def _new(args: Sequence[Any]) -> list[Any]:
    """The same tensors in memory of their own: a bug that writes over what it is given is asked too."""
    return [a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in args]


def far_positions() -> list[Callable[[Callable[..., Any]], Any]]:
    """Probes of what turns: positions far out in every dtype, that then move on, and another theta before the usual."""

    def call(dtype: torch.dtype, positions: Sequence[int], theta: float) -> Callable[[Callable[..., Any]], Any]:
        def probe(layer: Callable[..., Any]) -> Any:
            # A head_dim that no other call has, so that nothing is kept for it.
            x = target.tensor(torch.linspace(-1, 1, 2 * 3 * 4 * 12).reshape(2, 3, 4, 12), dtype)
            at, frequencies = target.tensor(positions), target.tensor(theta ** (-torch.arange(6) / 6))
            before = layer(x.clone(), at, frequencies)
            at += 1
            return [before, layer(x, at, frequencies)]

        return probe

    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    calls = [([3, 1, 2, 0], 500000.0), ([5000, 3, 60001, 301], 10000.0)]
    return [call(dtype, *arguments) for dtype in dtypes for arguments in calls]
