"""The gradients by autograd, of formulas of its own."""

import torch
import torch.nn.functional as F

from tests.peers.formulas._shared import widened


def _taken(function, grad, *arguments):
    """The gradients of the arguments, each in its own dtype; grad mode may be off outside."""
    with torch.enable_grad():
        leaves = [argument.detach().requires_grad_() for argument in arguments]
        out = function(*leaves)
        return torch.autograd.grad(out, leaves, grad.detach().to(out.dtype))


def softmax_backward(grad, y):
    # The logarithm of the probabilities is one of the rows that they may have come from.
    (grad_x,) = _taken(lambda x: torch.softmax(x, -1), widened(grad), widened(y).log())
    return grad_x.to(grad.dtype)


def cross_entropy_backward(grad, logits, targets):
    if targets.numel() == 0:
        raise ValueError("cross_entropy_backward: there must be at least one token, got none")
    if targets.min() < 0 or targets.max() >= logits.shape[-1]:
        raise IndexError(f"cross_entropy_backward: targets must lie in 0..{logits.shape[-1] - 1}")

    def loss(logits):
        return F.cross_entropy(widened(logits).reshape(-1, logits.shape[-1]), targets.reshape(-1))

    return _taken(loss, widened(grad), logits)[0]


def embedding_backward(grad, token_ids, vocab):
    if token_ids.numel() and (token_ids.min() < 0 or token_ids.max() >= vocab):
        raise IndexError(f"embedding_backward: token_ids must lie in 0..{vocab - 1}")
    table = widened(grad).new_zeros(vocab, grad.shape[-1])
    return _taken(lambda weight: F.embedding(token_ids, weight), widened(grad), table)[0].to(grad.dtype)


def linear_backward(grad, x, weight):
    return _taken(lambda x, weight: widened(x) @ widened(weight).mT, widened(grad), x, weight)


def rms_norm_backward(grad, x, weight, eps=1e-5):
    def normed(x, weight):
        wide = widened(x)
        return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight

    return _taken(normed, widened(grad), x, weight)


def silu_backward(grad, x):
    return _taken(lambda x: F.silu(widened(x)), widened(grad), x)[0]


def swiglu_backward(grad, x, w_gate, w_up, w_down):
    def block(x, *weights):
        x, gate, up, down = (widened(t) for t in (x, *weights))
        return (F.silu(x @ gate.mT) * (x @ up.mT)) @ down.mT

    return _taken(block, widened(grad), x, w_gate, w_up, w_down)


def attention_backward(grad, q, k, v, causal=True, mask=None):
    def attended(q, k, v):
        groups = q.shape[1] // k.shape[1]
        q, k, v = widened(q), *(widened(t).repeat_interleave(groups, 1) for t in (k, v))
        hidden = torch.zeros(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        if causal:
            hidden = torch.ones_like(hidden).triu(1 + k.shape[2] - q.shape[2])
        if mask is not None:
            hidden = hidden | ~mask
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(hidden, -torch.inf)
        nothing = hidden.all(-1, keepdim=True)
        weights = scores.masked_fill(nothing, 0).softmax(-1).masked_fill(hidden, 0)
        return weights @ v

    return _taken(attended, widened(grad), q, k, v)
