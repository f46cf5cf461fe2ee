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
    return leaf.detach().cpu().double().numpy() if isinstance(leaf, torch.Tensor) else leaf


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
