"""The modules of torch.nn."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.peers.formulas._shared import check_ids, visible_keys, widened

# Left out: rope, adamw and sampling by a given number, which are not in torch.nn.


def _called(module, x, **weights):
    """The module with these weights in the place of its own, which are on the meta device and have no values."""
    return functional_call(module, weights, (x,))


def softmax(x):
    return nn.Softmax(dim=-1)(x)


def cross_entropy(logits, targets):
    # It skips -100, and adds up float16 in float16; the contract does neither.
    check_ids(targets, logits.movedim(-1, 0))
    wide = widened(logits)
    return nn.CrossEntropyLoss()(wide.reshape(-1, wide.shape[-1]), targets.reshape(-1)).to(logits.dtype)


def embedding(token_ids, weight):
    # On a GPU a wrong id is an assertion of the device, after which nothing works any more.
    check_ids(token_ids, weight)
    # In half precision its gradient adds up the rows of a repeated id in half precision.
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    table = nn.Embedding(*weight.shape, device="meta")
    return functional_call(table, {"weight": wide}, (token_ids,)).to(weight.dtype)


def linear(x, weight):
    return _called(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"), x, weight=weight)


def rms_norm(x, weight, eps=1e-5):
    # Of a weight of another dtype it warns, and a warning is an error here.
    return _called(nn.RMSNorm(x.shape[-1], eps=eps, device="meta"), x, weight=weight.to(x.dtype))


def silu(x):
    return nn.SiLU()(x)


def swiglu(x, w_gate, w_up, w_down):
    return linear(nn.SiLU()(linear(x, w_gate)) * linear(x, w_up), w_down)


def attention(q, k, v, causal=True, mask=None):
    """The mask is always given: is_causal lets the first of the queries see the first key, not the last."""
    visible = visible_keys(q, k, causal, mask)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)
    # What a query without keys gives is not documented.
    return torch.where(visible.any(dim=-1, keepdim=True), out, 0.0)


def paged_attention(q, key_pages, value_pages, page_table, lengths):
    """Put in order first; unread slots would make NaN of its result, where they hold it, though they are masked."""
    held = torch.arange(page_table.shape[1] * key_pages.shape[2], device=q.device) < lengths[:, None]
    if not held.any():
        return torch.zeros_like(q)
    table = page_table.masked_fill(~held[:, :: key_pages.shape[2]], 0)
    keys, values = (
        widened(of[table]).transpose(1, 2).flatten(2, 3).masked_fill(~held[:, None, :, None], 0)
        for of in (key_pages, value_pages)
    )
    mask = held[:, None, None]
    y = F.scaled_dot_product_attention(widened(q)[:, :, None], keys, values, attn_mask=mask, enable_gqa=True)
    return y[:, :, 0].masked_fill((lengths == 0)[:, None, None], 0).to(q.dtype)
