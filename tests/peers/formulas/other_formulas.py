"""The same values by other formulas."""

import bisect
import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.peers.formulas._shared import check_ids, widened


def softmax(x):
    return widened(x).log_softmax(dim=-1).exp().to(x.dtype)


def cross_entropy(logits, targets):
    check_ids(targets, logits.movedim(-1, 0))
    chosen = widened(logits).log_softmax(dim=-1).gather(-1, targets[..., None])
    return -chosen.mean().to(logits.dtype)


def rms_norm(x, weight, eps=1e-5):
    """sqrt(mean(x²) + eps) is the length of x, with one more component sqrt(n · eps), over sqrt(n)."""
    wide, n = widened(x), x.shape[-1]
    more = torch.full_like(wide[..., :1], math.sqrt(n * eps))
    return (wide * math.sqrt(n) / torch.cat((wide, more), -1).norm(dim=-1, keepdim=True) * weight).to(x.dtype)


def silu(x):
    """sigmoid(x) = (1 + tanh(x / 2)) / 2"""
    half = widened(x) / 2
    return (half + half * half.tanh()).to(x.dtype)


def rope_frequencies(head_dim, theta=10000.0):
    return torch.exp(torch.arange(0, head_dim, 2, dtype=torch.float64) * (-math.log(theta) / head_dim))


def llama3_frequencies(frequencies, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192):
    """Without cases: outside of the bridge its weight is held at 0 and 1."""
    turns = original_context * frequencies / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return torch.lerp(frequencies / factor, frequencies, kept)


def cosine_schedule(step, peak_lr, warmup_steps, total_steps, min_lr):
    """(1 + cos(a)) / 2 = cos(a / 2)², and the peak is an average of peak and minimum too."""
    if step < warmup_steps:
        return (step + 1) * (peak_lr / warmup_steps)
    if step >= total_steps:
        return min_lr
    share = math.cos(math.pi / 2 * (step - warmup_steps) / (total_steps - warmup_steps)) ** 2
    return share * peak_lr + (1 - share) * min_lr


def adamw(param, grad, exp_avg, exp_avg_sq, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """Both corrections in the step size; eps is scaled so that it comes out right."""
    wide = [widened(t.detach()) for t in (param, grad, exp_avg, exp_avg_sq)]
    # lerp makes a float32 of its weight, and the difference of 0.999 from 1 has to survive that.
    average = torch.lerp(wide[2], wide[1], 1 - betas[0])
    average_square = torch.lerp(wide[3], wide[1] ** 2, 1 - betas[1])
    root = math.sqrt(1 - betas[1] ** step)
    step_size = lr * root / (1 - betas[0] ** step)
    new = torch.addcdiv(
        wide[0] * (1 - lr * weight_decay), average, average_square.sqrt() + eps * root, value=-step_size
    )
    return tuple(t.to(param.dtype) for t in (new, average, average_square))


def clip_grad_norm(grads, max_norm):
    """All gradients laid end to end, clipped, and cut apart again."""
    if not grads:
        return [], torch.zeros(())
    vector = torch.cat([widened(grad.detach()).reshape(-1) for grad in grads])
    norm = vector.norm()
    parts = F.normalize(vector, dim=0, eps=0.0).mul(max_norm) if norm > max_norm else vector
    parts = parts.split([grad.numel() for grad in grads])
    return [p.reshape(g.shape).to(g.dtype) for p, g in zip(parts, grads, strict=True)], norm


def filter_logits(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """Everything happens in descending order; the ids come back at the end."""
    order = logits.argsort(dim=-1, descending=True, stable=True)
    descending = widened(logits).gather(-1, order)
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


def sample(logits, u):
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


def quantize(weight, bits=8, group=64):
    """Multiplied by the reciprocal of the scale, as kernels do."""
    if bits not in (8, 4):
        raise ValueError(f"quantize: bits must be 8 or 4, got {bits}")
    if group < 1 or weight.shape[1] % group:
        raise ValueError(f"quantize: group must divide d_in, got {group}")
    if not weight.isfinite().all():
        raise ValueError("quantize: weight must be finite")
    limit = 2 ** (bits - 1) - 1
    runs = widened(weight).reshape(weight.shape[0], -1, group)
    scales = torch.linalg.vector_norm(runs, math.inf, dim=-1) / limit
    reciprocals = torch.where(scales == 0, 0, 1 / scales)
    codes = (runs * reciprocals[..., None]).round().clamp(-limit, limit)
    return codes.reshape(weight.shape).to(torch.int8), scales.float()


def quantized_linear(x, codes, scales):
    """A sum over the runs of linear layers, each of whose results is scaled."""
    wide, group = widened(x), codes.shape[1] // scales.shape[1]
    total = wide.new_zeros(*x.shape[:-1], codes.shape[0])
    for run, scale in enumerate(scales.to(wide.dtype).unbind(1)):
        part = slice(run * group, (run + 1) * group)
        total = total + F.linear(wide[..., part], codes[:, part].to(wide.dtype)) * scale
    return total.to(x.dtype)


def speculative_accept(draft_logits, target_logits, draft_ids, u, v):
    """All rows at once: with a row of zeros behind the draft's, the last difference is the target itself."""
    p_draft, p_target = draft_logits.double().softmax(dim=-1), target_logits.double().softmax(dim=-1)
    left = F.relu(p_target - F.pad(p_draft, (0, 0, 0, 1)))
    weights = torch.where(left.any(dim=-1, keepdim=True), left, p_target)
    sums, tokens = weights.cumsum(dim=-1), torch.arange(weights.shape[1], device=v.device)
    last_possible = torch.where(weights > 0, tokens, 0).amax(dim=-1)
    drawn = torch.minimum((sums <= v * sums[:, -1:]).sum(dim=-1), last_possible)
    of_draft, of_target = (p[: len(u)].take_along_dim(draft_ids[:, None], 1)[:, 0] for p in (p_draft, p_target))
    refused = u * of_draft >= of_target
    n = int(refused.int().argmax()) if refused.any() else len(u)
    return torch.cat((draft_ids[:n], drawn[n : n + 1]))
