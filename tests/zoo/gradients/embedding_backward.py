"""The bugs that people make in embedding_backward."""

import torch

from llama.contract import check_ids
from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    grad = target.tensor([[[1.0, 2.0], [3.0, 5.0]], [[7.0, 11.0], [13.0, 17.0]]])
    ids = target.tensor([[0, 2], [1, 1]])
    ones = target.tensor(torch.ones(5000, 1))

    def many(f):
        return f(target.tensor(torch.ones(65540, 1)), target.tensor(torch.arange(65540) // 65530), 2)

    def beyond_16_bits(f):
        return f(target.tensor([[1.0], [2.0]]), target.tensor([65537, 3]), 65540)[[1, 3, 65537]]

    return [
        *[((grad, target.tensor([[0, 2], [2, outside]]), 3), {}) for outside in (-1, 3)],
        ((grad, ids, 4), {}),
        ((grad, target.tensor([[2, 2], [2, 2]]), 4), {}),
        ((ones.bfloat16(), torch.zeros_like(ones[:, 0]).long(), 1), {}),
        many,
        beyond_16_bits,
        lambda f: f(grad.clone(), ids.clone().mT, 3),
        lambda f: f(grad.clone().transpose(0, 1), ids.clone(), 3),
        again(lambda: [grad, ids, 3]),
        again(lambda: [grad, ids, 3], lambda grad, ids, vocab: [grad.flip(0), ids, vocab]),
    ]


def _check(ids, vocab):
    check_ids("embedding_backward: token_ids", ids, vocab)


def _sums(grad, ids, vocab):
    """Right, before it is rounded to the dtype of grad."""
    _check(ids, vocab)
    wide = grad.detach().to(torch.promote_types(grad.dtype, torch.float32))
    table = wide.new_zeros(vocab, grad.shape[-1])
    return table.index_put_((ids,), wide, accumulate=True)


def _counts(ids, vocab):
    """How often each id occurs, as a column that can be divided by."""
    return ids.flatten().bincount(minlength=vocab).clamp(min=1)[:, None]


def last_token_wins(grad, token_ids, vocab):
    """of several tokens with the same id only the last counts: it overwrites the others.

    Tempting: `grad_weight[token_ids] += grad` looks like a sum, but it reads once, adds, and writes.
    Seen: pytorch/pytorch#1528.
    """
    _check(token_ids, vocab)
    rows, ids = grad.reshape(token_ids.numel(), grad.shape[-1]), token_ids.flatten()
    at = torch.arange(len(ids), device=grad.device)
    last = at.new_full((vocab,), -1).scatter_reduce(0, ids, at, "amax")
    table = grad.new_zeros(vocab, grad.shape[-1])
    table[last >= 0] = rows[last[last >= 0]]
    return table


def divided_by_the_count(grad, token_ids, vocab):
    """each row is divided by how often its id occurs: a mean in place of the sum.

    Tempting: frequent tokens then learn no faster than rare ones, which sounds fair.
    """
    return (_sums(grad, token_ids, vocab) / _counts(token_ids, vocab)).to(grad.dtype)


def divided_by_the_tokens(grad, token_ids, vocab):
    """every row is divided by the number of tokens.

    Tempting: the loss is a mean over tokens; but grad has that factor already.
    """
    return (_sums(grad, token_ids, vocab) / max(1, token_ids.numel())).to(grad.dtype)


def last_batch_entry_alone(grad, token_ids, vocab):
    """only the tokens of the last batch entry are added up.

    Tempting: a loop over the batch begins a new table for each entry.
    """
    if token_ids.ndim < 2 or len(token_ids) == 0:
        return _sums(grad, token_ids, vocab).to(grad.dtype)
    _check(token_ids, vocab)
    return _sums(grad[-1], token_ids[-1], vocab).to(grad.dtype)


def added_up_in_the_dtype(grad, token_ids, vocab):
    """gradients of a repeated id are added up in the dtype of grad, so that in bfloat16 the sum stops growing.

    Tempting: an atomic addition into the result itself needs no memory beside it, and in float32 it is right.
    Seen: tenstorrent/tt-metal#53386, apache/mxnet#17703.
    """
    if grad.element_size() > 2:
        return _sums(grad, token_ids, vocab)
    _check(token_ids, vocab)
    table = grad.new_zeros(vocab, grad.shape[-1])
    for rows, ids in zip(grad.reshape(-1, grad.shape[-1]).split(16), token_ids.flatten().split(16), strict=True):
        table = table + _sums(rows, ids, vocab).to(grad.dtype)
    return table


def sums_not_rounded_back(grad, token_ids, vocab):
    """the sums stay in float32, also where grad is in half precision.

    Tempting: they were made in float32 for good reason, and the optimizer wants float32 too.
    """
    return _sums(grad, token_ids, vocab)


def row_zero_is_padding(grad, token_ids, vocab):
    """row 0 is taken for padding and gets no gradient.

    Tempting: padding_idx=0 stands in many examples.
    """
    return _sums(grad.masked_fill((token_ids == 0)[..., None], 0), token_ids, vocab).to(grad.dtype)


def negative_ids_count_from_the_end(grad, token_ids, vocab):
    """a negative id adds to a row counted from the end, where it should be an IndexError.

    Tempting: indexing does the whole work, and allows it.
    """
    wrapped = torch.where((token_ids < 0) & (token_ids >= -vocab), token_ids + vocab, token_ids)
    return _sums(grad, wrapped, vocab).to(grad.dtype)


def ids_outside_left_out(grad, token_ids, vocab):
    """an id outside the vocabulary is left out, where it should be an IndexError.

    Tempting: a mask keeps a kernel from writing elsewhere, and the tokenizer's fault goes unnoticed.
    """
    inside = (token_ids >= 0) & (token_ids < vocab)
    if vocab == 0:
        return grad.new_zeros(0, grad.shape[-1])
    kept = grad.masked_fill(~inside[..., None], 0)
    return _sums(kept, token_ids.masked_fill(~inside, 0), vocab).to(grad.dtype)


def table_ends_at_the_largest_id(grad, token_ids, vocab):
    """the result has rows only up to the largest id that occurs.

    Tempting: the ids seem to tell how long the table is, as bincount and one_hot have it.
    """
    found = _sums(grad, token_ids, vocab).to(grad.dtype)
    return found[: int(token_ids.max()) + 1] if token_ids.numel() else found[:0]


def table_turned(grad, token_ids, vocab):
    """the result is [d_model vocab] and not [vocab d_model].

    Tempting: as a product with one-hot rows, the factors are easily exchanged.
    """
    return _sums(grad, token_ids, vocab).to(grad.dtype).T


def ids_in_16_bits(grad, token_ids, vocab):
    """ids are kept in 16 bits, so that those beyond 65,535 count from 0 again.

    Tempting: corpora are stored so, and the first vocabularies had 50,257 tokens.
    """
    _check(token_ids, vocab)
    return _sums(grad, token_ids % 65536, vocab).to(grad.dtype)


def tokens_beyond_65535_left_out(grad, token_ids, vocab):
    """tokens from the 65,536th on are left out.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    _check(token_ids, vocab)
    rows, ids = grad.reshape(token_ids.numel(), grad.shape[-1]), token_ids.flatten()
    return _sums(rows[:65535], ids[:65535], vocab).to(grad.dtype)


def ids_without_their_strides(grad, token_ids, vocab):
    """the ids are read in the order of the memory, whatever their strides.

    Tempting: ids come from a tokenizer, one after the other.
    """
    _check(token_ids, vocab)
    return _sums(grad, as_if_contiguous(token_ids).clamp(0, vocab - 1), vocab).to(grad.dtype)


def grad_without_its_strides(grad, token_ids, vocab):
    """grad is read in the order of the memory, whatever its strides.

    Tempting: one row of it for each token, each as long as d_model.
    """
    return _sums(as_if_contiguous(grad), token_ids, vocab).to(grad.dtype)


_TABLES = {}


def added_to_the_last_gradient(grad, token_ids, vocab):
    """the sums go on from those of the last call with the same sizes.

    Tempting: autograd adds to .grad until somebody sets it to zero, and a table this large is not made anew gladly.
    """
    found = _sums(grad, token_ids, vocab)
    key = vocab, grad.shape, grad.dtype, grad.device
    _TABLES[key] = _TABLES[key] + found if key in _TABLES else found
    return _TABLES[key].to(grad.dtype, copy=True)
