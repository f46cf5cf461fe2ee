"""Adapters: modules and kernels of other conventions as layers of this project, one line each.

    from llama import adapt
    from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb

    rms_norm = adapt.module(LlamaRMSNorm)
    swiglu = adapt.module(LlamaMLP)
    rope = adapt.apply_rotary_pos_emb(apply_rotary_pos_emb)

What goes in is what the tests give a layer; what comes out is what they compare:

    module                  x, weight      -> a module of these sizes, called with x, its parameters being these weights
    seq_before_heads        [batch heads seq head_dim] -> [batch seq heads head_dim], and back
    repeat_heads            k, v of n_kv_heads -> of n_heads
    upper_left              q of the last q_len positions -> q of all kv_len positions, of which the last are returned
    sdpa                    causal, mask   -> is_causal, attn_mask of scaled_dot_product_attention
    interleaved             features i and i + head_dim/2 -> features 2i and 2i + 1, and back
    cos_sin                 positions, frequencies -> cos, sin
    apply_rotary_pos_emb    the same for a function of q and k, as in transformers

They can be put into each other: `rope = adapt.cos_sin(adapt.interleaved(f), full=False)`. Tensors keep their dtype, and
one that is not contiguous is not made so; gradients reach every argument.
"""

import inspect
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[..., Any]

EPS = ("eps", "epsilon", "variance_epsilon", "norm_eps")
"""What modules call it."""
SWIGLU = (("gate_proj", "gate", "w1", "w_gate"), ("up_proj", "up", "w3", "w_up"), ("down_proj", "down", "w2", "w_down"))
"""What modules call the three matrices, in the order of swiglu's arguments."""


def module(make: Callable[..., nn.Module], names: Sequence[str] = ()) -> Function:
    """A class of modules as `rms_norm`, `linear`, `embedding` or `swiglu`, by the weights that it is called with.

    It is made as these usually are: `make(d_model, eps=eps)`, `make(d_in, d_out, bias=False)`, `make(vocab, d_model)`,
    and `make(config)` or `make(d_model, d_ff)`. For a class with other arguments, give a function that takes these:
    `adapt.module(lambda d_model, eps: Norm(epsilon=eps, dim=d_model))`. `names` are the names of its parameters in the
    order of the layer's weights, such as `["w1.weight", "w3.weight", "w2.weight"]`, where they are not known.
    """
    if isinstance(make, nn.Module):
        kind = type(make).__name__
        raise TypeError(
            f"adapt.module takes a class, got an instance of {kind}, which has one size: adapt.module({kind})"
        )
    kept = threading.local()  # a module holds the weights while it is called: each thread has its own

    def layer(x: Tensor, *weights: Any, eps: float = 1e-5) -> Any:
        if weights and not isinstance(weights[-1], Tensor):
            *weights, eps = weights  # type: ignore[assignment]
        sizes = tuple(tuple(weight.shape) for weight in weights)
        key = sizes, eps, x.is_floating_point()
        modules = vars(kept).setdefault("modules", {})
        if key not in modules:
            modules.clear()
            with torch.device("meta"):  # without memory, and without random numbers
                modules[key] = _made(make, sizes, eps, embeds=not x.is_floating_point())
        made = modules[key]
        return torch.func.functional_call(made, dict(zip(_names(made, len(sizes), names), weights, strict=True)), (x,))

    return layer


def _made(make: Callable[..., nn.Module], sizes: Sequence[Sequence[int]], eps: float, embeds: bool) -> nn.Module:
    if len(sizes) == 3:
        d_ff, d_model = sizes[0]
        if _takes(make, "config"):
            config = {"hidden_size": d_model, "intermediate_size": d_ff, "hidden_act": "silu", "mlp_bias": False}
            return make(SimpleNamespace(**config))
        return make(d_model, d_ff)
    (size,) = sizes
    if len(size) == 2:
        return make(*size) if embeds else make(size[1], size[0], **({"bias": False} if _takes(make, "bias") else {}))
    name = next((name for name in EPS if _takes(make, name)), None)
    made = make(size[0], **({name: eps} if name else {}))
    attribute = next((name for name in EPS if hasattr(made, name)), None)
    if not name and not attribute:
        raise TypeError(f"adapt.module: {_called(make)} has none of {', '.join(EPS)}, and rms_norm needs an eps")
    if attribute:
        setattr(made, attribute, eps)
    return made.train(False)


def _takes(make: Callable[..., Any], parameter: str) -> bool:
    try:
        return parameter in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False


def _names(made: nn.Module, count: int, names: Sequence[str]) -> Sequence[str]:
    """The parameters of the module in the order of the layer's weights."""
    there = [name for name, _ in made.named_parameters()]
    if names:
        return names
    if len(there) != count:
        raise TypeError(
            f"adapt.module: {_called(type(made))} has {', '.join(there) or 'no parameter'}; give {count} names"
        )
    known = [name for of in SWIGLU for name in there if name.removesuffix(".weight") in of]
    return known if count == 3 and len(known) == 3 else there


def _called(what: Any) -> str:
    return getattr(what, "__name__", repr(what))


def seq_before_heads(function: Function) -> Function:
    """`attention` or `rope` over [batch seq heads head_dim], as flash-attention has it, as a layer."""

    def layer(*args: Any, **kwargs: Any) -> Any:
        return _turned(function(*map(_turned, args), **{name: _turned(value) for name, value in kwargs.items()}))

    def _turned(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4 or value.dtype == torch.bool:  # a mask stays as it is
            return value
        turned = value.transpose(1, 2)
        return turned.contiguous() if value.is_contiguous() else turned

    return layer


def repeat_heads(function: Function) -> Function:
    """`attention` that needs as many key heads as query heads, as a layer: query head h reads key head h // groups."""

    def layer(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Any:
        groups = q.shape[1] // k.shape[1]
        return function(q, *(t.repeat_interleave(groups, 1) if groups > 1 else t for t in (k, v)), *args, **kwargs)

    return layer


def upper_left(function: Function) -> Function:
    """`attention(q, k, v, causal)` that aligns `causal` at the first key, as a layer, which aligns it at the last.

    Fewer queries than keys are preceded by zeros, so that both are the same. It has no mask: CLAIMS = "no mask".
    """

    def layer(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Any:
        missing = k.shape[2] - q.shape[2]
        if not causal or not missing:
            return function(q, k, v, causal)
        if missing < 0:
            raise ValueError(f"attention: causal needs q_len <= kv_len, got {q.shape[2]} and {k.shape[2]}")
        before = q.new_zeros(*q.shape[:2], missing, q.shape[3])
        return function(torch.cat((before, q), 2), k, v, causal)[:, :, missing:].contiguous()

    return layer


def sdpa(function: Function) -> Function:
    """A function with the arguments of `torch.nn.functional.scaled_dot_product_attention` as `attention`.

    Its `is_causal` is aligned at the first key, and a query that may attend to nothing is not defined. It is called as
    function(q, k, v, attn_mask=..., is_causal=...), with is_causal where there are as many queries as keys.
    """

    def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, mask: Tensor | None = None) -> Any:
        q_len, kv_len = q.shape[2], k.shape[2]
        if causal and q_len > kv_len:
            raise ValueError(f"attention: causal needs q_len <= kv_len, got {q_len} and {kv_len}")
        if mask is None and (not causal or q_len == kv_len):
            return function(q, k, v, attn_mask=None, is_causal=causal)
        visible = torch.ones(q_len, kv_len, dtype=torch.bool, device=q.device)
        if causal:
            visible = visible.tril(kv_len - q_len)
        if mask is not None:
            visible = visible & mask
        some = visible.any(-1, keepdim=True)
        out = function(q, k, v, attn_mask=visible | ~some, is_causal=False)
        return torch.where(some, out, out.new_zeros(()))

    return repeat_heads(attention)


def interleaved(function: Function) -> Function:
    """A rope that turns the pairs of neighbours (x[2i], x[2i + 1]), as in Meta's llama, as `rope`.

    What follows x is handed on as it is.
    """

    def layer(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        neighbours = torch.stack(x.chunk(2, -1), -1).flatten(-2)
        turned = function(neighbours, *args, **kwargs).unflatten(-1, (-1, 2))
        return torch.cat((turned[..., 0], turned[..., 1]), -1)

    return layer


def cos_sin(function: Function, full: bool = True) -> Function:
    """`function(x, cos, sin)` as `rope`: cos and sin are [1 or batch, 1, seq, head_dim], in x's dtype.

    With `full` false their last axis is head_dim/2; else the angles stand there twice, one row after the other.
    """

    def rope(x: Tensor, positions: Tensor, frequencies: Tensor) -> Any:
        cos, sin = _tables(x, positions, frequencies, full)
        return function(x, cos[:, None], sin[:, None])

    return rope


def apply_rotary_pos_emb(function: Function) -> Function:
    """`function(q, k, cos, sin)` of transformers as `rope`: cos and sin are [1 or batch, seq, head_dim]."""

    def rope(x: Tensor, positions: Tensor, frequencies: Tensor) -> Any:
        return function(x, x, *_tables(x, positions, frequencies, full=True))[0]

    return rope


def _tables(x: Tensor, positions: Tensor, frequencies: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each angle, [1 or batch, seq, head_dim] or half as many: from angles in at least float32."""
    wide = torch.promote_types(frequencies.dtype, torch.float32)
    angles = positions[..., None].to(wide) * frequencies.to(wide)
    angles = angles if angles.ndim == 3 else angles[None]
    angles = torch.cat((angles, angles), -1) if full else angles
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)
