"""Right implementations that look nothing like ours, and that the suite must therefore leave green.

A suite can be wrong in two ways: it lets a bug pass (tests/zoo), or it alarms on right code (this file). Each peer
maps layers to functions with the contract's signature:

    implementation.Implementation("complex numbers", PEERS["complex numbers"])

Where a package differs from the contract on purpose, the difference is named beside it and taken out, or the layer is
left out.
"""

import bisect
import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.func import functional_call
from transformers.generation import logits_process
from transformers.models.llama import modeling_llama

from llama import implementation
from llama.implementation import map_leaves

OURS = implementation.load("vectorized")


def _wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _visible(q, k, causal, mask):
    """What each query may attend to, as [batch n_heads q_len kv_len]; by counting, without a triangle."""
    batch, n_heads, q_len, _ = q.shape
    kv_len = k.shape[2]
    visible = torch.ones(batch, n_heads, q_len, kv_len, dtype=torch.bool, device=q.device)
    if causal:
        last = torch.arange(kv_len - q_len, kv_len, device=q.device)
        visible = visible & (torch.arange(kv_len, device=q.device) <= last[:, None])
    return visible if mask is None else visible & mask


# Rotations


def rope_by_complex_numbers(x, positions, frequencies):
    """A pair is a complex number, and a turn is a product with exp(i · angle)."""
    angles = positions[..., None].double() * frequencies
    angles = angles if angles.ndim == 2 else angles[:, None]
    real, imaginary = x.double().chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)


def rope_by_matrices(x, positions, frequencies):
    """Each pair is multiplied with a 2 x 2 matrix of its own."""
    positions = positions.expand(x.shape[0], x.shape[2])
    angles = positions[..., None].to(frequencies.dtype) * frequencies
    cos, sin = angles.cos(), angles.sin()
    matrices = torch.stack((torch.stack((cos, -sin), dim=-1), torch.stack((sin, cos), dim=-1)), dim=-2)
    pairs = _wide(x).unflatten(-1, (2, frequencies.shape[0]))
    return torch.einsum("bsfij,bhsjf->bhsif", matrices.to(pairs.dtype), pairs).flatten(-2).to(x.dtype)


# Attention


def attention_in_tiles(q, k, v, causal=True, mask=None, tile=3):
    """A few keys at a time, with a running maximum and a running sum, as in FlashAttention."""
    groups = q.shape[1] // k.shape[1]
    visible = _visible(q, k, causal, mask)
    queries = _wide(q) / math.sqrt(q.shape[-1])
    keys, values = (_wide(t).repeat_interleave(groups, dim=1) for t in (k, v))
    largest = torch.full_like(queries[..., :1], -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(queries)
    for start in range(0, k.shape[2], tile):
        part = slice(start, start + tile)
        scores = (queries @ keys[:, :, part].mT).masked_fill(~visible[..., part], -math.inf)
        new = torch.maximum(largest, scores.detach().amax(dim=-1, keepdim=True))
        finite = new.masked_fill(new == -math.inf, 0.0)
        weights, correction = (scores - finite).exp(), (largest - finite).exp()
        total = total * correction + weights.sum(dim=-1, keepdim=True)
        out = out * correction + weights @ values[:, :, part]
        largest = new
    return (out / total.masked_fill(total == 0, 1.0)).to(q.dtype)


# Sums written as einsum


def softmax_by_einsum(x):
    powers = (_wide(x) - _wide(x).amax(dim=-1, keepdim=True)).exp()
    return torch.einsum("...n,...->...n", powers, 1 / torch.einsum("...n->...", powers)).to(x.dtype)


def cross_entropy_by_einsum(logits, targets):
    wide = _wide(logits)
    is_target = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    chosen = torch.einsum("...v->...", wide.where(is_target, 0.0))  # times one-hot, 0 · -inf would be NaN
    return (wide.logsumexp(dim=-1) - chosen).mean().to(logits.dtype)


def embedding_by_einsum(token_ids, weight):
    """A row of one 1 and zeros, times the weight."""
    _check_ids(token_ids, weight)
    one_hot = token_ids[..., None] == torch.arange(weight.shape[0], device=weight.device)
    return torch.einsum("...v,vd->...d", one_hot.to(weight.dtype), weight)


def linear_by_einsum(x, weight):
    return torch.einsum("...i,oi->...o", x, weight)


def swiglu_by_einsum(x, w_gate, w_up, w_down):
    gate = linear_by_einsum(x, w_gate)
    return torch.einsum("...f,...f,df->...d", gate * gate.sigmoid(), linear_by_einsum(x, w_up), w_down)


def rms_norm_by_einsum(x, weight, eps=1e-5):
    wide = _wide(x)
    root = (torch.einsum("...d,...d->...", wide, wide) / x.shape[-1] + eps).rsqrt()
    return torch.einsum("...d,...,d->...d", wide, root, weight.to(wide.dtype)).to(x.dtype)


def attention_by_einsum(q, k, v, causal=True, mask=None):
    """Groups as an axis of their own, so that nothing is repeated."""
    n_kv_heads = k.shape[1]
    grouped = _wide(q).unflatten(1, (n_kv_heads, -1))
    visible = _visible(q, k, causal, mask).unflatten(1, (n_kv_heads, -1))
    scores = torch.einsum("bkgqd,bkpd->bkgqp", grouped, _wide(k)) * q.shape[-1] ** -0.5
    nothing = ~visible.any(dim=-1, keepdim=True)
    weights = scores.masked_fill(~visible & ~nothing, -math.inf).softmax(dim=-1).masked_fill(nothing, 0.0)
    return torch.einsum("bkgqp,bkpd->bkgqd", weights, _wide(v)).flatten(1, 2).to(q.dtype)


def self_attention_by_einsum(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    """Weights are split into heads, and what they make is never merged."""
    q, k, v = (
        torch.einsum("bsm,hdm->bhsd", x, w.unflatten(0, (n, -1)))
        for w, n in ((w_q, n_heads), (w_k, n_kv_heads), (w_v, n_kv_heads))
    )
    q, k = (rope_by_matrices(t, positions, frequencies) for t in (q, k))
    return torch.einsum("bhsd,mhd->bsm", attention_by_einsum(q, k, v), w_o.unflatten(1, (n_heads, -1)))


# One matrix product for several weights, as inference engines have it


def swiglu_merged(x, w_gate, w_up, w_down):
    gate, up = F.linear(x, torch.cat((w_gate, w_up))).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, w_down)


def self_attention_merged(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    head_dim = w_q.shape[0] // n_heads
    heads = F.linear(x, torch.cat((w_q, w_k, w_v))).unflatten(-1, (-1, head_dim)).transpose(1, 2)
    turned = rope_by_complex_numbers(heads[:, : n_heads + n_kv_heads], positions, frequencies)
    q, k = turned.split((n_heads, n_kv_heads), dim=1)
    out = attention_in_tiles(q, k, heads[:, n_heads + n_kv_heads :])
    return F.linear(out.transpose(1, 2).flatten(2), w_o)


# The same values by other formulas


def softmax_by_logsumexp(x):
    return (_wide(x) - _wide(x).logsumexp(dim=-1, keepdim=True)).exp().to(x.dtype)


def cross_entropy_by_gather(logits, targets):
    chosen = _wide(logits).log_softmax(dim=-1).gather(-1, targets[..., None])
    return -chosen.mean().to(logits.dtype)


def rms_norm_by_length(x, weight, eps=1e-5):
    """sqrt(mean(x²) + eps) is the length of x, with one more component sqrt(n · eps), over sqrt(n)."""
    wide, n = _wide(x), x.shape[-1]
    more = torch.full_like(wide[..., :1], math.sqrt(n * eps))
    return (wide * math.sqrt(n) / torch.cat((wide, more), -1).norm(dim=-1, keepdim=True) * weight).to(x.dtype)


def silu_by_tanh(x):
    """sigmoid(x) = (1 + tanh(x / 2)) / 2"""
    half = _wide(x) / 2
    return (half + half * half.tanh()).to(x.dtype)


def rope_frequencies_by_exp(head_dim, theta=10000.0):
    return torch.exp(torch.arange(0, head_dim, 2, dtype=torch.float64) * (-math.log(theta) / head_dim))


def llama3_frequencies_by_clamp(
    frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
):
    """Without cases: outside of the bridge its weight is held at 0 and 1."""
    turns = original_context * frequencies / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return torch.lerp(frequencies / factor, frequencies, kept)


def cosine_schedule_by_half_angle(step, peak_lr, warmup_steps, total_steps, min_lr):
    """(1 + cos(a)) / 2 = cos(a / 2)², and the peak is an average of peak and minimum too."""
    if step < warmup_steps:
        return (step + 1) * (peak_lr / warmup_steps)
    if step >= total_steps:
        return min_lr
    share = math.cos(math.pi / 2 * (step - warmup_steps) / (total_steps - warmup_steps)) ** 2
    return share * peak_lr + (1 - share) * min_lr


def adamw_with_one_step_size(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """Both corrections in the step size; eps is scaled so that it comes out right."""
    wide = [_wide(t) for t in (param, grad, exp_avg, exp_avg_sq)]
    # lerp makes a float32 of its weight, and the difference of 0.999 from 1 has to survive that.
    average = torch.lerp(wide[2], wide[1], 1 - betas[0])
    average_square = torch.lerp(wide[3], wide[1] ** 2, 1 - betas[1])
    root = math.sqrt(1 - betas[1] ** step)
    step_size = lr * root / (1 - betas[0] ** step)
    new = torch.addcdiv(
        wide[0] * (1 - lr * weight_decay), average, average_square.sqrt() + eps * root, value=-step_size
    )
    return tuple(t.to(param.dtype) for t in (new, average, average_square))


def clip_grad_norm_of_one_vector(grads, max_norm):
    """All gradients laid end to end, clipped, and cut apart again."""
    if not grads:
        return [], torch.zeros(())
    vector = torch.cat([_wide(grad).reshape(-1) for grad in grads])
    norm = vector.norm()
    parts = F.normalize(vector, dim=0, eps=0.0).mul(max_norm) if norm > max_norm else vector
    parts = parts.split([grad.numel() for grad in grads])
    return [p.reshape(g.shape).to(g.dtype) for p, g in zip(parts, grads, strict=True)], norm.to(grads[0].dtype)


def filter_logits_among_the_sorted(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """Everything happens in descending order; the ids come back at the end."""
    order = logits.argsort(dim=-1, descending=True, stable=True)
    descending = _wide(logits).gather(-1, order)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    if temperature == 0:
        descending = descending.where(rank == 0, -math.inf)
        temperature = 1.0
    descending = descending / temperature
    if top_k is not None:
        kth = descending[..., [min(top_k, len(rank)) - 1]]
        descending = descending.where(descending >= kth, -math.inf)
    if top_p is not None and top_p < 1:
        before = F.pad(descending.softmax(dim=-1).cumsum(dim=-1)[..., :-1], (1, 0))
        descending = descending.where(before < top_p, -math.inf)
    if min_p is not None:
        # A threshold on the logits: log(min_p) below the largest.
        threshold = descending[..., :1] + (math.log(min_p) if min_p else -math.inf)
        descending = descending.where(descending >= threshold, -math.inf)
    return descending.gather(-1, order.argsort(dim=-1)).to(logits.dtype)


def sample_by_bisection(logits, u):
    """In Python: running sums of the possible tokens, not normalised, and a binary search for u times their total."""
    ids = torch.empty(u.shape, dtype=torch.int64, device=logits.device)
    for row in np.ndindex(tuple(u.shape)):
        values = logits[row].double()
        powers = (values - values.max()).exp().tolist()
        possible = [i for i, power in enumerate(powers) if power > 0]
        sums = np.cumsum([powers[i] for i in possible])
        place = bisect.bisect_right(sums, float(u[row]) * sums[-1])
        ids[row] = possible[min(place, len(possible) - 1)]
    return ids


# NumPy, for the layers that need no gradient


def _by_numpy(function):
    """Tensors in and out, NumPy arrays in float64 within."""

    @functools.wraps(function)
    def layer(*args, **kwargs):
        given = next(t for t in _tensors((args, kwargs)) if t.is_floating_point())
        args, kwargs = map_leaves(_to_numpy, (args, kwargs))
        return map_leaves(lambda a: _from_numpy(a, given), function(*args, **kwargs))

    return layer


def _to_numpy(leaf):
    return leaf.detach().cpu().double().numpy() if isinstance(leaf, torch.Tensor) else leaf


def _from_numpy(leaf, like):
    array = torch.as_tensor(leaf, device=like.device)
    return array.to(like.dtype) if array.is_floating_point() else array


@_by_numpy
def adamw_by_numpy(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    moments = np.stack((exp_avg, exp_avg_sq))
    beta = np.array(betas).reshape(2, *[1] * param.ndim)
    moments = beta * moments + (1 - beta) * np.stack((grad, grad**2))
    m, v = moments / (1 - beta**step)
    return param - lr * (m / (np.sqrt(v) + eps) + weight_decay * param), moments[0], moments[1]


@_by_numpy
def sample_by_numpy(logits, u):
    """Running sums that are not normalised, compared with u times their last."""
    rows, vocab = logits.reshape(-1, logits.shape[-1]), logits.shape[-1]
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True, initial=-np.inf))
    possible = np.where(powers > 0, np.arange(vocab), 0).max(axis=-1, initial=0)
    sums = np.cumsum(powers, axis=-1)
    reached = (sums <= u.reshape(-1, 1) * sums[:, -1:]).sum(axis=-1)
    return np.minimum(reached, possible).reshape(u.shape)


# Ours, in float64 whatever the arguments are


def _in_float64(layer):
    @functools.wraps(layer)
    def within(*args, **kwargs):
        dtypes = [t.dtype for t in _tensors((args, kwargs)) if t.is_floating_point()]
        args, kwargs = map_leaves(lambda t: _cast(t, torch.float64), (args, kwargs))
        return map_leaves(lambda t: _cast(t, dtypes[0]) if dtypes else t, layer(*args, **kwargs))

    return within


def _cast(leaf, dtype):
    return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _tensors(tree):
    found = []
    map_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None, tree)
    return found


# torch.nn


def _check_ids(token_ids, weight):
    if ((token_ids < 0) | (token_ids >= weight.shape[0])).any():
        raise IndexError(f"embedding: ids must lie in 0..{weight.shape[0] - 1}")


def _called(module, x, **weights):
    """The module with these weights in the place of its own, which are on the meta device and have no values."""
    return functional_call(module, weights, (x,))


def softmax_of_nn(x):
    return nn.Softmax(dim=-1)(x)


def cross_entropy_of_nn(logits, targets):
    # It adds up float16 in float16; the contract asks for float32.
    wide = _wide(logits)
    return nn.CrossEntropyLoss()(wide.reshape(-1, wide.shape[-1]), targets.reshape(-1)).to(logits.dtype)


def embedding_of_nn(token_ids, weight):
    # On a GPU a wrong id is an assertion of the device, after which nothing works any more.
    _check_ids(token_ids, weight)
    return (
        nn.Embedding.from_pretrained(weight, freeze=False)(token_ids)
        if not weight.requires_grad
        else (functional_call(nn.Embedding(*weight.shape, device="meta"), {"weight": weight}, (token_ids,)))
    )


def linear_of_nn(x, weight):
    return _called(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"), x, weight=weight)


def rms_norm_of_nn(x, weight, eps=1e-5):
    # Of a weight of another dtype it warns, and a warning is an error here.
    return _called(nn.RMSNorm(x.shape[-1], eps=eps, device="meta"), x, weight=weight.to(x.dtype))


def silu_of_nn(x):
    return nn.SiLU()(x)


def swiglu_of_nn(x, w_gate, w_up, w_down):
    return linear_of_nn(nn.SiLU()(linear_of_nn(x, w_gate)) * linear_of_nn(x, w_up), w_down)


def attention_of_nn(q, k, v, causal=True, mask=None):
    """The mask is always given: is_causal lets the first of the queries see the first key, not the last."""
    visible = _visible(q, k, causal, mask)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)
    # What a query without keys gives is not documented.
    return torch.where(visible.any(dim=-1, keepdim=True), out, 0.0)


# torch.optim


def adamw_of_optim(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """It works in place, so it gets copies; its own count of steps is the number of those done.

    The copies are in float32 at least, as is usual: in float16 its eps is zero.
    """
    parameter, gradient, average, average_square = (
        _wide(t).detach().clone() for t in (param, grad, exp_avg, exp_avg_sq)
    )
    parameter = nn.Parameter(parameter)
    parameter.grad = gradient
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    done = torch.tensor(step - 1.0)
    optimizer.state[parameter] = {"step": done, "exp_avg": average, "exp_avg_sq": average_square}
    optimizer.step()
    return tuple(t.detach().to(param.dtype) for t in (parameter, average, average_square))


def clip_grad_norm_of_utils(grads, max_norm):
    """torch divides by norm + 1e-6 on purpose; so the norm it gets is less by that."""
    parameters = [nn.Parameter(torch.empty_like(grad)) for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    norm = nn.utils.get_total_norm(grads)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm - 1e-6)
    return [parameter.grad for parameter in parameters], norm


def cosine_schedule_of_optim(step, peak_lr, warmup_steps, total_steps, min_lr):
    """LinearLR, then CosineAnnealingLR, which would rise again after total_steps on purpose, so the step is held."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=peak_lr)
    if step < warmup_steps:
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup_steps, total_iters=max(1, warmup_steps - 1))
        schedule.last_epoch = step
    else:
        # Where all is warm-up the cosine has no length; any will do, at its end.
        length = max(1, total_steps - warmup_steps)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length, eta_min=min_lr)
        schedule.last_epoch = length if step >= total_steps else step - warmup_steps
    return schedule._get_closed_form_lr()[0]


# transformers


def _ours_where_theirs_differs(layer):
    """The layer as it is; but ours in float64, of which transformers makes float32, and for an empty batch."""
    ours = getattr(OURS, layer.__name__.removesuffix("_of_transformers"))

    @functools.wraps(layer)
    def either(*args, **kwargs):
        # The first float tensor: frequencies in float64 do not make a call one in float64.
        first = next(t for t in _tensors((args, kwargs)) if t.is_floating_point())
        return (ours if first.dtype == torch.float64 or args[0].shape[0] == 0 else layer)(*args, **kwargs)

    return either


def _on_meta(make, *args):
    with torch.device("meta"):
        return make(*args)


@_ours_where_theirs_differs
def rms_norm_of_transformers(x, weight, eps=1e-5):
    # With a weight of another dtype it gives that one's.
    return _called(_on_meta(modeling_llama.LlamaRMSNorm, x.shape[-1], eps), x, weight=weight.to(x.dtype))


def swiglu_of_transformers(x, w_gate, w_up, w_down):
    d_ff, d_model = w_gate.shape
    sizes = {"hidden_size": d_model, "intermediate_size": d_ff}
    mlp = _on_meta(modeling_llama.LlamaMLP, SimpleNamespace(**sizes, mlp_bias=False, hidden_act="silu"))
    weights = {"gate_proj.weight": w_gate, "up_proj.weight": w_up, "down_proj.weight": w_down}
    return functional_call(mlp, weights, (x,))


def _cos_and_sin(x, positions, frequencies):
    """As LlamaRotaryEmbedding makes them, from frequencies that are given."""
    rotary = SimpleNamespace(inv_freq=frequencies, attention_scaling=1.0, rope_type="default")
    return modeling_llama.LlamaRotaryEmbedding.forward(rotary, x, positions if positions.ndim == 2 else positions[None])


def rope_of_transformers(x, positions, frequencies):
    cos, sin = _cos_and_sin(x, positions, frequencies)
    return modeling_llama.apply_rotary_pos_emb(x, x, cos, sin)[0]


def _additive(visible, dtype):
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, -math.inf)


@_ours_where_theirs_differs
def attention_of_transformers(q, k, v, causal=True, mask=None):
    """A query without keys would be NaN: there it sees all, and what it gives is replaced by zeros.

    Its scores are in the dtype of q, where those in float16 end at 65504; so float16 comes as float32.
    """
    if q.dtype == torch.float16:
        return attention_of_transformers(q.float(), k.float(), v.float(), causal, mask).half()
    visible = _visible(q, k, causal, mask)
    some = visible.any(dim=-1, keepdim=True)
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    bias = _additive(visible | ~some, q.dtype)
    out, _ = modeling_llama.eager_attention_forward(module, q, k, v, bias, q.shape[-1] ** -0.5)
    return torch.where(some, out.transpose(1, 2), 0.0)


def _config(d_model, n_heads, n_kv_heads, head_dim, **more):
    config = transformers.LlamaConfig(attn_implementation="eager", bos_token_id=None, eos_token_id=None, **more)
    # A head_dim of one's own needs no d_model that n_heads divides, but the constructor refuses it.
    config.hidden_size, config.head_dim = d_model, head_dim
    config.num_attention_heads, config.num_key_value_heads = n_heads, n_kv_heads
    return config


def _causal(x):
    ones = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    return _additive(ones.tril(), x.dtype)


@_ours_where_theirs_differs
def self_attention_of_transformers(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads, positions, frequencies):
    config = _config(x.shape[-1], n_heads, n_kv_heads, w_q.shape[0] // n_heads)
    attention = _on_meta(modeling_llama.LlamaAttention, config, 0)
    weights = {f"{name}_proj.weight": w for name, w in zip("qkvo", (w_q, w_k, w_v, w_o), strict=True)}
    given = {"position_embeddings": _cos_and_sin(x, positions, frequencies), "attention_mask": _causal(x)}
    return functional_call(attention, weights, (x,), given)[0]


@_ours_where_theirs_differs
def decoder_layer_of_transformers(x, weights, n_heads, n_kv_heads, positions, frequencies, eps=1e-5):
    d_ff, head_dim = weights["mlp.gate_proj.weight"].shape[0], weights["self_attn.q_proj.weight"].shape[0] // n_heads
    config = _config(x.shape[-1], n_heads, n_kv_heads, head_dim, intermediate_size=d_ff, rms_norm_eps=eps)
    layer = _on_meta(modeling_llama.LlamaDecoderLayer, config, 0)
    given = {"position_embeddings": _cos_and_sin(x, positions, frequencies), "attention_mask": _causal(x)}
    return functional_call(layer, dict(weights), (x,), given)


@_ours_where_theirs_differs
def llama_of_transformers(token_ids, weights, config):
    """The head is always given, as its own or as the embedding."""
    theirs = _config(
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        intermediate_size=config.intermediate_size,
        rms_norm_eps=config.rms_norm_eps,
        vocab_size=config.vocab_size,
        num_hidden_layers=config.num_hidden_layers,
        rope_parameters=(config.rope_scaling or {"rope_type": "default"}) | {"rope_theta": config.rope_theta},
    )
    model = transformers.LlamaForCausalLM(theirs).to(token_ids.device).eval()
    weights = {"lm_head.weight": weights["model.embed_tokens.weight"]} | dict(weights)
    return functional_call(model, weights, (token_ids,), {"use_cache": False}).logits


def cosine_schedule_of_transformers(step, peak_lr, warmup_steps, total_steps, min_lr):
    """Its warm-up starts at zero, one step earlier; and it would rise again after total_steps, so the step is held."""
    end = max(total_steps, warmup_steps + 1)
    at = step + 1 if step < warmup_steps else end if step >= total_steps else step
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=peak_lr)
    schedule = transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup_steps, end, min_lr=min_lr)
    return peak_lr * schedule.lr_lambdas[0](at)


def filter_logits_of_transformers(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """generate() makes the logits float32, two-dimensional, and takes the argmax where the temperature is 0.

    Of equally likely tokens its top_p drops the first ones, so it gets the ids in reverse.
    """
    scores = _wide(logits).flip(-1).reshape(-1, logits.shape[-1])
    if temperature == 0:
        last = scores.shape[-1] - 1
        first = last - scores.flip(-1).argmax(dim=-1, keepdim=True)
        scores = scores.where(torch.arange(last + 1, device=scores.device) == first, -math.inf)
    warpers = [logits_process.TemperatureLogitsWarper(float(temperature))] if temperature else []
    warpers += [logits_process.TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [logits_process.TopPLogitsWarper(top_p)] if top_p is not None else []
    warpers += [logits_process.MinPLogitsWarper(min_p)] if min_p is not None else []
    for warper in warpers:
        scores = warper(None, scores)
    return scores.reshape(logits.shape).flip(-1).to(logits.dtype)


LEAVES = (
    *("softmax", "cross_entropy", "embedding", "linear", "rms_norm", "silu", "swiglu", "llama3_frequencies", "rope"),
    *("attention", "adamw", "clip_grad_norm", "filter_logits", "sample"),
)

PEERS: dict[str, dict[str, Callable[..., Any]]] = {
    "complex numbers": {"rope": rope_by_complex_numbers},
    "rotation matrices": {"rope": rope_by_matrices},
    "tiled online softmax": {"attention": attention_in_tiles},
    "einsum": {
        "softmax": softmax_by_einsum,
        "cross_entropy": cross_entropy_by_einsum,
        "embedding": embedding_by_einsum,
        "linear": linear_by_einsum,
        "rms_norm": rms_norm_by_einsum,
        "swiglu": swiglu_by_einsum,
        "attention": attention_by_einsum,
        "self_attention": self_attention_by_einsum,
    },
    "merged weights": {"swiglu": swiglu_merged, "self_attention": self_attention_merged},
    "other formulas": {
        "softmax": softmax_by_logsumexp,
        "cross_entropy": cross_entropy_by_gather,
        "rms_norm": rms_norm_by_length,
        "silu": silu_by_tanh,
        "rope_frequencies": rope_frequencies_by_exp,
        "llama3_frequencies": llama3_frequencies_by_clamp,
        "adamw": adamw_with_one_step_size,
        "clip_grad_norm": clip_grad_norm_of_one_vector,
        "cosine_schedule": cosine_schedule_by_half_angle,
        "filter_logits": filter_logits_among_the_sorted,
        "sample": sample_by_bisection,
    },
    "numpy": {"adamw": adamw_by_numpy, "sample": sample_by_numpy},
    "float64 within": {layer: _in_float64(getattr(OURS, layer)) for layer in LEAVES},
    # rope, adamw and sampling by a given number are not in torch.nn.
    "torch.nn": {
        "softmax": softmax_of_nn,
        "cross_entropy": cross_entropy_of_nn,
        "embedding": embedding_of_nn,
        "linear": linear_of_nn,
        "rms_norm": rms_norm_of_nn,
        "silu": silu_of_nn,
        "swiglu": swiglu_of_nn,
        "attention": attention_of_nn,
    },
    "torch.optim": {
        "adamw": adamw_of_optim,
        "clip_grad_norm": clip_grad_norm_of_utils,
        "cosine_schedule": cosine_schedule_of_optim,
    },
    # Left out: rope_frequencies and llama3_frequencies, which it computes in float32 and the contract in float64; and
    # sample, which it draws by torch's own generator.
    "transformers": {
        "rms_norm": rms_norm_of_transformers,
        "swiglu": swiglu_of_transformers,
        "rope": rope_of_transformers,
        "attention": attention_of_transformers,
        "self_attention": self_attention_of_transformers,
        "decoder_layer": decoder_layer_of_transformers,
        "llama": llama_of_transformers,
        "cosine_schedule": cosine_schedule_of_transformers,
        "filter_logits": filter_logits_of_transformers,
    },
}
