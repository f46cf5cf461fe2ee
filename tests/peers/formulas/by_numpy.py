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
