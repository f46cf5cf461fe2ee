"""The bugs that people make in embedding."""

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, gradients, with_gradient


def probes():
    weight = target.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    ids, wide = target.tensor([[0, 2], [1, 0]]), target.tensor(torch.arange(12.0).view(3, 4))
    many = target.tensor([0] * 3000), weight.bfloat16()

    def single(embedding):
        table = weight.clone()
        embedding(target.tensor([1]), table).zero_()
        return table

    def no_longer_in_the_table(embedding):
        at = target.tensor([2, 0])
        embedding(at, weight.clone())
        at[0] = -1
        return embedding(at, weight)

    return [
        *[((target.tensor(ids), weight), {}) for ids in ([0, -1], [0, 3])],
        ((target.tensor([65537, 3]), target.tensor(torch.arange(65540.0)[:, None])), {}),
        lambda embedding: embedding(target.tensor([0] * 65540), target.tensor([[1.0]])).sum(),
        ((ids.mT, weight), {}),
        single,
        no_longer_in_the_table,
        lambda embedding: embedding(ids.clone(), wide.clone()[:, :2]),
        again(lambda: [ids, weight.clone()], lambda ids, weight: [ids.flip(0), weight]),
        again(lambda: [ids, weight.bfloat16()], lambda ids, weight: [ids, weight.mul_(2)]),
        gradients(lambda: [ids, weight], of=(1,)),
        gradients(lambda: [ids, weight], of=(1,), transposed=True),
        gradients(lambda: many, of=(1,)),
    ]


def _rows(token_ids, weight, **how):
    """Right but for `how`: the gradients of a repeated id are added up in at least float32."""
    return F.embedding(token_ids, weight.to(torch.promote_types(weight.dtype, torch.float32)), **how).to(weight.dtype)


def negative_ids_count_from_the_end(token_ids, weight):
    """a negative id is counted from the end of the table and gives a row, where it should be an IndexError.

    Tempting: weight[token_ids] is all there is to it, and Python's indexing does the rest.
    Seen: BlinkDL/ChatRWKV#217.
    """
    return weight[token_ids]


def ids_clamped_into_the_table(token_ids, weight):
    """an id outside the vocabulary gives the nearest row, where it should be an IndexError.

    Tempting: nothing crashes any more, and the tokenizer's fault goes unnoticed.
    Seen: vllm-project/vllm#35937.
    """
    return weight[token_ids.clamp(0, len(weight) - 1)]


def scaled_by_the_root_of_the_width(token_ids, weight):
    """every row is multiplied by the square root of d_model.

    Tempting: the first Transformer did so and Gemma does, but Llama does not.
    """
    return _rows(token_ids, weight) * weight.shape[-1] ** 0.5


def row_zero_is_padding(token_ids, weight):
    """row 0 is taken for padding: it is read as it should be, but gets no gradient and never learns.

    Tempting: padding_idx=0 stands in many examples, and the output looks right.
    """
    return _rows(token_ids, weight, padding_idx=0)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, token_ids, weight):
        ctx.save_for_backward(token_ids)
        ctx.rows = len(weight)
        return F.embedding(token_ids, weight)

    @staticmethod
    def backward(ctx, gradient):
        (token_ids,) = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        found = gradient.new_zeros(ctx.rows, gradient.shape[-1])
        for token, row in zip(token_ids.flatten().tolist(), rows, strict=True):
            found[token] += row
        return None, found


def repeated_ids_added_up_in_the_dtype(token_ids, weight):
    """the gradients of a repeated id are added up in the dtype of the table, so that in bfloat16 the sum stops growing.

    Tempting: an atomic addition into the gradient itself needs no memory beside it, and in float32 it is right.
    Seen: tenstorrent/tt-metal#53386, apache/mxnet#17703.
    """
    return _Gathered.apply(token_ids, weight)


def gradient_divided_by_the_count(token_ids, weight):
    """the gradient of an id is divided by how often it occurs.

    Tempting: scale_grad_by_freq sounds like a good thing for rare tokens, and the output is right.
    """
    return _rows(token_ids, weight, scale_grad_by_freq=True)


_RESULTS = {}


def result_in_one_place(token_ids, weight):
    """without gradients the result lies in memory that the next call of the same shape writes to.

    Tempting: each step of decoding looks up as many tokens, and index_select takes an `out`.
    """
    y = _rows(token_ids, weight)
    if y.requires_grad:
        return y
    place = _RESULTS.setdefault((y.shape, y.dtype, y.device), torch.empty_like(y))
    with torch.no_grad():
        return place.copy_(y)


def ids_in_16_bits(token_ids, weight):
    """ids are kept in 16 bits, so that those beyond 65,535 count from 0 again.

    Tempting: corpora are stored so, and the first vocabularies had 50,257 tokens.
    """
    F.embedding(token_ids, weight[:, :1])  # refuses what lies outside
    return _rows(token_ids % 65536, weight)


def tokens_beyond_65535_left_out(token_ids, weight):
    """rows for tokens from the 65,536th on are never written, and stay zero.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    y = _rows(token_ids, weight)
    at = torch.arange(token_ids.numel(), device=y.device).view(token_ids.shape)
    return y.masked_fill((at >= 65535)[..., None], 0)


def strides_of_the_ids_ignored(token_ids, weight):
    """the ids are read in the order of their memory, which is another where they are transposed or expanded.

    Tempting: ids come from a tokenizer, one after the other.
    """
    return _rows(as_if_contiguous(token_ids), weight)


def rows_of_the_table_taken_to_follow_each_other(token_ids, weight):
    """the rows of the table are taken to follow each other, so that columns of a wider table are read wrongly.

    Tempting: row i begins at i times d_model, as long as nobody slices.
    """
    return _rows(token_ids, as_if_contiguous(weight) if weight.stride(-1) == 1 else weight)


_WIDE = {}


def widened_once(token_ids, weight):
    """a half-precision table is widened once and the copy is read for as long as the object is the same.

    Tempting: a table does not change while one decodes; but training goes on with the same object.
    """
    if weight.dtype not in (torch.float16, torch.bfloat16) or (torch.is_grad_enabled() and weight.requires_grad):
        return _rows(token_ids, weight)
    if id(weight) not in _WIDE or _WIDE[id(weight)][0] is not weight:
        _WIDE[id(weight)] = weight, weight.float()
    return _rows(token_ids, _WIDE[id(weight)][1]).to(weight.dtype)


def upstream_taken_for_contiguous(token_ids, weight):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: one row of it for each token, each as long as d_model.
    """
    return with_gradient(_rows(token_ids, weight), as_if_contiguous)


def row_itself_for_a_single_token(token_ids, weight):
    """for a single token the result is the row of the table itself: who writes to one writes to the other.

    Tempting: weight[5] needs no kernel and no copy; in decoding there is one token at a time.
    """
    if token_ids.numel() != 1:
        return _rows(token_ids, weight)
    F.embedding(token_ids, weight[:, :1])  # refuses what lies outside
    return weight[int(token_ids)].view(*token_ids.shape, weight.shape[-1])


_CHECKED = []


def ids_checked_once(token_ids, weight):
    """ids are checked once for each tensor of them, so that what is written to it later may count from the end.

    Tempting: the check waits for the device each time, and the same tensor of ids was fine before.
    """
    if not (_CHECKED and _CHECKED[0] is token_ids and _CHECKED[1] == len(weight)):
        F.embedding(token_ids, weight[:, :1])
        _CHECKED[:] = token_ids, len(weight)
    return weight[token_ids]


def leading_axes_flattened(token_ids, weight):
    """the leading axes come back as one, so that ids [batch seq] give [batch·seq d_model].

    Tempting: flatten makes a list of ids, and the last view is forgotten.
    """
    return _rows(token_ids.flatten(), weight)


def rows_of_length_one(token_ids, weight):
    """every row is divided by its length.

    Tempting: word vectors are often compared by their direction alone.
    """
    return F.normalize(_rows(token_ids, weight), dim=-1)


def ids_counted_from_one(token_ids, weight):
    """each id gets the row before its own, as if ids were counted from 1.

    Tempting: the first token has the number 1 in many word lists; Python hides it, since row -1 is the last one.
    """
    return weight[token_ids - 1]


def columns_of_the_table(token_ids, weight):
    """the columns of the table are read, and not its rows.

    Tempting: linear transposes its weight, so this table seems to need it too.
    """
    return weight.T[token_ids]


def row_zero_is_zeros(token_ids, weight):
    """id 0 gives zeros, and not row 0.

    Tempting: id 0 is padding in many programs, and padding should say nothing.
    """
    return _rows(token_ids, weight).masked_fill((token_ids == 0)[..., None], 0)
