"""NumPy, for the layers that need no gradient."""

import functools

import numpy as np
import torch

from llama.implementation import map_leaves, tensors


def _by_numpy(function):
    """Tensors in and out, NumPy arrays in float64 within."""

    @functools.wraps(function)
    def layer(*args, **kwargs):
        given = next(t for t in tensors((args, kwargs)) if t.is_floating_point())
        args, kwargs = map_leaves(_to_numpy, (args, kwargs))
        return map_leaves(lambda a: _from_numpy(a, given), function(*args, **kwargs))

    return layer


def _to_numpy(leaf):
    if not isinstance(leaf, torch.Tensor):
        return leaf
    on_cpu = leaf.detach().cpu()
    return (on_cpu.double() if on_cpu.is_floating_point() else on_cpu).numpy()


def _from_numpy(leaf, like):
    array = torch.as_tensor(leaf, device=like.device)
    return array.to(like.dtype) if array.is_floating_point() else array


@_by_numpy
def adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    moments = np.stack((exp_avg, exp_avg_sq))
    beta = np.array(betas).reshape(2, *[1] * param.ndim)
    moments = beta * moments + (1 - beta) * np.stack((grad, grad**2))
    m, v = moments / (1 - beta**step)
    return param - lr * (m / (np.sqrt(v) + eps) + weight_decay * param), moments[0], moments[1]


@_by_numpy
def sample(logits, u):
    """Running sums that are not normalised, compared with u times their last."""
    rows, vocab = logits.reshape(-1, logits.shape[-1]), logits.shape[-1]
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True, initial=-np.inf))
    possible = np.where(powers > 0, np.arange(vocab), 0).max(axis=-1, initial=0)
    sums = np.cumsum(powers, axis=-1)
    reached = (sums <= u.reshape(-1, 1) * sums[:, -1:]).sum(axis=-1)
    return np.minimum(reached, possible).reshape(u.shape)


def tiled_attention(q, k, v, causal=True, mask=None, tile=64):
    """Twice over the keys: first for the largest score and the sum, then for the values."""
    if tile < 1:
        raise ValueError(f"tiled_attention: tile must be at least 1, got {tile}")
    queries, keys, values = (_to_numpy(t) for t in (q, k, v))
    groups, (q_len, kv_len) = q.shape[1] // k.shape[1], (q.shape[2], k.shape[2])
    position = np.arange(kv_len - q_len, kv_len)[:, None]
    # A view: an expanded mask stays as small as it is.
    may_attend = np.broadcast_to(True if mask is None else mask.cpu().numpy(), (*q.shape[:3], kv_len))

    def scores(start):
        of_tile = np.repeat(keys[:, :, start : start + tile], groups, axis=1)
        products = queries @ of_tile.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        hidden = (np.arange(start, start + of_tile.shape[2]) > position) & causal
        return np.where(may_attend[..., start : start + tile] & ~hidden, products, -np.inf)

    starts = range(0, kv_len, tile)
    largest = np.full(q.shape[:3], -np.inf)
    for start in starts:
        largest = np.maximum(largest, scores(start).max(axis=-1))
    finite = np.where(np.isinf(largest), 0, largest)[..., None]
    total, y = np.zeros((*q.shape[:3], 1)), np.zeros(q.shape)
    for start in starts:
        powers = np.exp(scores(start) - finite)
        total += powers.sum(axis=-1, keepdims=True)
        y += powers @ np.repeat(values[:, :, start : start + tile], groups, axis=1)
    with np.errstate(divide="ignore"):
        lse = largest + np.log(total[..., 0])
    like_lse = q.new_empty(0, dtype=torch.promote_types(q.dtype, torch.float32))
    return _from_numpy(y / np.where(total == 0, 1, total), q), _from_numpy(lse, like_lse)


def merge_attention(y_a, lse_a, y_b, lse_b):
    (a, sum_a), (b, sum_b) = ((_to_numpy(y), _to_numpy(lse)) for y, lse in ((y_a, lse_a), (y_b, lse_b)))
    lse = np.logaddexp(sum_a, sum_b)
    largest = np.maximum(sum_a, sum_b)
    finite = np.where(np.isinf(largest), 0, largest)
    weights = [np.exp(of - finite)[..., None] for of in (sum_a, sum_b)]
    parts = [weight * np.where(weight > 0, y, 0) for weight, y in zip(weights, (a, b), strict=True)]
    y = sum(parts) / np.maximum(sum(weights), 1)
    return _from_numpy(y, y_a), _from_numpy(lse, lse_a)


def quantize(weight, bits=8, group=64):
    """Scales in float64 where the weight is."""
    if bits not in (8, 4):
        raise ValueError(f"quantize: bits must be 8 or 4, got {bits}")
    if group < 1 or weight.shape[1] % group:
        raise ValueError(f"quantize: group must divide d_in, got {group}")
    array = _to_numpy(weight)
    if not np.isfinite(array).all():
        raise ValueError("quantize: weight must be finite")
    limit = 2 ** (bits - 1) - 1
    runs = array.reshape(len(array), -1, group)
    scales = np.maximum(runs.max(axis=-1), -runs.min(axis=-1)) / limit
    steps = np.divide(runs, scales[..., None], out=np.zeros_like(runs), where=scales[..., None] > 0)
    codes = torch.from_numpy(np.rint(steps).astype(np.int8).reshape(array.shape))
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return codes.to(weight.device), torch.from_numpy(scales).to(weight.device, dtype)


def quantized_linear(x, codes, scales):
    """Codes, scales and x in one product."""
    features, whole, of_runs = (_to_numpy(t) for t in (x, codes, scales))
    runs = of_runs.shape[1], whole.shape[1] // of_runs.shape[1]
    features, whole = (part.reshape(*part.shape[:-1], *runs) for part in (features, whole.astype(np.float64)))
    return _from_numpy(np.einsum("...gi,ogi,og->...o", features, whole, of_runs), x)


@_by_numpy
def paged_attention(q, key_pages, value_pages, page_table, lengths):
    """One sequence and one key head after the other; the slots that are read are picked out by their numbers."""
    y, groups, page_size = np.zeros_like(q), q.shape[1] // key_pages.shape[1], key_pages.shape[2]
    for b, length in enumerate(lengths):
        positions = np.arange(length)
        if length == 0:
            continue
        pages, slots = page_table[b][positions // page_size], positions % page_size
        for head in range(key_pages.shape[1]):
            keys, values = key_pages[pages, head, slots], value_pages[pages, head, slots]
            heads = slice(head * groups, (head + 1) * groups)
            scores = q[b, heads] @ keys.T / np.sqrt(q.shape[-1])
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            y[b, heads] = powers @ values / powers.sum(axis=-1, keepdims=True)
    return y


@_by_numpy
def speculative_accept(draft_logits, target_logits, draft_ids, u, v):
    """Judged by logarithms, drawn by a search among the sums of what is possible alone."""
    p_draft, p_target = (np.exp(of - _logarithm_of_sum(of)) for of in (draft_logits, target_logits))
    places = np.arange(len(u)), draft_ids
    with np.errstate(divide="ignore"):
        passed = np.log(u) + np.log(p_draft[places]) < np.log(p_target[: len(u)][places])
    n = len(u) if passed.all() else int(passed.argmin())
    weights = p_target[n]
    if n < len(u):
        left = weights - np.minimum(weights, p_draft[n])
        weights = left if left.any() else weights
    possible = np.flatnonzero(weights)
    sums = np.cumsum(weights[possible])
    place = np.searchsorted(sums, v * sums[-1], side="right")
    return np.append(draft_ids[:n], possible[min(place, len(possible) - 1)])


def _logarithm_of_sum(rows):
    largest = rows.max(axis=-1, keepdims=True)
    return largest + np.log(np.exp(rows - largest).sum(axis=-1, keepdims=True))
