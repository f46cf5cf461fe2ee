"""The gradients of a layer, beside those of the formula: the plain torch of `vectorized`, in float64."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llama.implementation import Layer, map_leaves, tensors
from llama.layers import parameters_of
from tests.cases.calls import Arguments, calls_of
from tests.judge.assertions import allowance, assert_close, at_least_single, fail
from tests.judge.results import copied, same
from tests.judge.subject import FORMULA, Subject, exact


class _Toward(torch.autograd.Function):
    """A loss whose gradient with respect to `out` is `toward`."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, toward: Tensor) -> Tensor:
        ctx.toward = toward
        return out.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.toward, None


def vjp(
    outs: Tensor | Sequence[Tensor], leaves: Sequence[Tensor], towards: Tensor | Sequence[Tensor], **how: Any
) -> tuple[Tensor, ...]:
    """torch.autograd.grad, the vector-Jacobian product: the upstream gradient reaches backward as it lies in memory.

    Given an upstream gradient, torch.autograd.grad imports sympy first, which takes as long as many of the tests.
    Fails where backward has written to what it was given: what is compared afterwards would be something else.
    """
    pairs = [(outs, towards)] if isinstance(outs, Tensor) else list(zip(outs, towards, strict=True))
    losses = [_Toward.apply(out, toward) for out, toward in pairs]
    arguments = [*leaves, *(tensors((Subject.last.args, Subject.last.kwargs)) if Subject.last is not None else ())]
    given = {"the upstream gradient": [toward for _, toward in pairs], "an argument": arguments}
    before = {name: [copied(part) for part in parts] for name, parts in given.items()}
    gradients: tuple[Tensor, ...] = torch.autograd.grad(losses, leaves, **how)
    for name, parts in given.items():
        if not all(same(now, then) for now, then in zip(parts, before[name], strict=True)):
            fail(f"backward has changed {name}, which others still need")
    return gradients


def differentiable(
    layer: str, function: Layer, args: Sequence[Any], kwargs: dict[str, Any], only: int | None = None
) -> tuple[list[Tensor], Callable[..., Any]]:
    """New leaves for the arguments that have a gradient, and the call as a function of them.

    Each leaf is a view of its argument, so that it lies in memory alike. With `only`, no other one asks for a gradient.
    """
    places = calls_of(layer).gradients
    leaves = [t.detach().requires_grad_() for i in places for t in tensors(args[i])]
    asking = leaves if only is None else [leaves[only]]

    def call(*values: Tensor) -> Any:
        given = iter(values)
        rest = iter([next(given) if any(leaf is one for one in asking) else leaf.detach() for leaf in leaves])
        new = [
            map_leaves(lambda leaf: next(rest) if isinstance(leaf, Tensor) else leaf, a) if i in places else a
            for i, a in enumerate(args)
        ]
        return function(*new, **kwargs)

    return asking, call


CUT_OFF = ".data, detach, no_grad, .item(), torch.tensor or NumPy cut it off"


def leaf_names(layer: str, args: Sequence[Any], only: int | None = None) -> list[str]:
    """What the leaves of `differentiable` are called: `weight`, or `weights["self_attn.q_proj.weight"]`."""
    parameters = list(parameters_of(layer))
    names: list[str] = []
    for place in calls_of(layer).gradients:
        if isinstance(args[place], Mapping):
            names += [f'{parameters[place]}["{key}"]' for key in args[place]]
        else:
            count = len(tensors(args[place]))
            names += [parameters[place]] if count == 1 else [f"{parameters[place]}[{i}]" for i in range(count)]
    return names if only is None else [names[only]]


def upstream(out: Tensor) -> Tensor:
    """A gradient of the loss with respect to `out`.

    In eighths: where a layer only adds them up, as embedding does for a repeated id, no dtype rounds. Not symmetric
    about zero: where all tokens are alike their gradients would cancel to nothing but error.
    """
    eighths = torch.linspace(-4, 8, out.numel(), device=out.device).round() / 8
    return eighths.reshape(out.shape).to(out.dtype)


def downstream(out: Tensor) -> Tensor:
    """A gradient of one sign, between 1/16 and 1/8: sums over tokens grow with their number."""
    return (torch.arange(out.numel(), device=out.device) % 5 + 5).reshape(out.shape).to(out.dtype) / 80


def cancelling(out: Tensor) -> Tensor:
    """The same, and negative in the second half: sums grow as large, and cancel in the end.

    A sum that is rounded to half precision in between is off by as much as its parts are.
    """
    toward = downstream(out).flatten()
    toward[toward.numel() // 2 :] *= -1
    return toward.reshape(out.shape)


def _for_each_token(loss: Tensor, logits: Tensor) -> Tensor:
    """The upstream gradient of a mean over tokens: their number, as far as float16 holds it, and negative.

    Each token has but its share of the gradient of a mean: among very many, no error would be seen.
    """
    tokens = logits.numel() // max(1, logits.shape[-1])
    return -loss.new_tensor(min(tokens, 2**14) if loss.dtype == torch.float16 else tokens)


def assert_gradients_equal_the_formula(
    layer: Subject,
    arguments: Arguments,
    towards: Callable[[Tensor], Tensor] = upstream,
    only: int | None = None,
    look_at: str = "",
) -> None:
    """Compare the gradients of all leaves with those of the formula in float64, for the same upstream gradient."""
    args, kwargs = arguments
    leaves, call = differentiable(layer.layer, layer, args, kwargs, only)
    out = call(*leaves)
    if not out.requires_grad:
        fail(f"no gradient reaches {' or '.join(leaf_names(layer.layer, args, only))}: {CUT_OFF}")
    toward = towards(out) if out.ndim else _for_each_token(out, leaves[0])
    gradients = vjp(out, leaves, toward, allow_unused=True)
    compare_gradients(layer.layer, gradients, leaves, arguments, toward, only, look_at)


def compare_gradients(
    layer: str,
    gradients: Sequence[Tensor | None],
    leaves: Sequence[Tensor],
    arguments: Arguments,
    toward: Tensor,
    only: int | None = None,
    look_at: str = "",
) -> None:
    """Compare gradients that were taken already."""
    args, kwargs = arguments
    exact_leaves, formula = differentiable(layer, getattr(FORMULA, layer), exact(args), exact(kwargs), only)
    expected = vjp(formula(*exact_leaves), exact_leaves, exact(toward))
    # Sums over tokens are long and cancel.
    args, kwargs = at_least_single(layer, arguments)
    own_leaves, formula = differentiable(layer, getattr(FORMULA, layer), args, kwargs, only)
    out = formula(*own_leaves)
    of_formula = vjp(out, own_leaves, toward.to(out.dtype))
    names = leaf_names(layer, args, only)
    for name, leaf, actual, right, own in zip(names, leaves, gradients, expected, of_formula, strict=True):
        if actual is None:
            fail(f"no gradient reaches {name}: {CUT_OFF}", look_at)
        beyond = allowance(leaf.dtype, layer, own, right)
        assert_close(actual, right, look_at, dtype=leaf.dtype, name=f"the gradient of {name}", beyond=beyond)
