"""The bugs that people make in embedding."""

import torch.nn.functional as F

from tests.cases import target


def probes():
    weight = target.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return [((target.tensor(ids), weight), {}) for ids in ([0, -1], [0, 3])]


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
    return F.embedding(token_ids, weight) * weight.shape[-1] ** 0.5


def row_zero_is_padding(token_ids, weight):
    """row 0 is taken for padding: it is read as it should be, but gets no gradient and never learns.

    Tempting: padding_idx=0 stands in many examples, and the output looks right.
    """
    return F.embedding(token_ids, weight, padding_idx=0)
