"""The gradients by torch's own backward kernels."""

import torch

from tests.peers.formulas._shared import widened

_aten = torch.ops.aten


def _alike(*tensors):
    """All in the widest of their dtypes, and at least float32."""
    wide = [widened(t.detach()) for t in tensors]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in wide) else torch.float32
    return [t.to(dtype) for t in wide]


@torch.no_grad()
def softmax_backward(grad, y):
    wide, probabilities = _alike(grad, y)
    return _aten._softmax_backward_data(wide, probabilities, -1, wide.dtype).to(grad.dtype)


@torch.no_grad()
def cross_entropy_backward(grad, logits, targets):
    if targets.numel() == 0:
        raise ValueError("cross_entropy_backward: there must be at least one token, got none")
    if targets.min() < 0 or targets.max() >= logits.shape[-1]:
        raise IndexError(f"cross_entropy_backward: targets must lie in 0..{logits.shape[-1] - 1}")
    toward, wide = _alike(grad, logits)
    rows, chosen = torch.log_softmax(wide.reshape(-1, logits.shape[-1]), -1), targets.reshape(-1)
    tokens = rows.new_tensor(float(len(rows)))
    to_rows = _aten.nll_loss_backward(toward, rows, chosen, None, 1, -100, tokens)
    return _aten._log_softmax_backward_data(to_rows, rows, -1, rows.dtype).view(logits.shape).to(logits.dtype)


@torch.no_grad()
def embedding_backward(grad, token_ids, vocab):
    if token_ids.numel() and (token_ids.min() < 0 or token_ids.max() >= vocab):
        raise IndexError(f"embedding_backward: token_ids must lie in 0..{vocab - 1}")
    return _aten.embedding_dense_backward(widened(grad.detach()), token_ids, vocab, -1, False).to(grad.dtype)


@torch.no_grad()
def silu_backward(grad, x):
    return _aten.silu_backward(*_alike(grad, x)).to(x.dtype)
