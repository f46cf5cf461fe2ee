"""The bugs that people make in cross_entropy."""

import torch
import torch.nn.functional as F

from tests.cases.case import Case


def probes():
    case = Case({"n": 300, "vocab": 3}, torch.float64, seed=1)
    return [((case.normal("n vocab"), case.integers("n", 3)), {})]


def softmax_before_the_loss(logits, targets):
    """the logits go through a softmax first and the probabilities are then taken for logits.

    Tempting: a model ought to end in probabilities, and the loss still falls, only slowly.
    Seen: bowang-lab/Transformer-GCN-QA#32.
    """
    return _loss(_wide(logits).softmax(-1), targets).to(logits.dtype)


def targets_shifted_again(logits, targets):
    """each position is judged by the target of the next one, though the targets are the next tokens already.

    Tempting: many libraries shift within the loss, others in the data, and one easily does both.
    Seen: huggingface/transformers#47394.
    """
    return _loss(_wide(logits)[..., :-1, :], targets[..., 1:]).to(logits.dtype)


def token_zero_is_padding(logits, targets):
    """positions whose target is token 0 are left out of the mean, as if it were padding.

    Tempting: 0 is the padding id of many tokenizers, but here it is a token like any other.
    Seen: lucidrains/parti-pytorch#8.
    """
    return _loss(_wide(logits), targets, ignore_index=0).to(logits.dtype)


def divided_by_the_batch(logits, targets):
    """the sum over all tokens is divided by the size of the first axis and not by the number of tokens.

    Tempting: one divides by the batch size, and it is right as long as each row is a single token.
    """
    return (_loss(_wide(logits), targets, reduction="sum") / len(logits)).to(logits.dtype)


def logarithm_of_a_guarded_probability(logits, targets):
    """the logarithm is taken of a probability plus 1e-9, so that no token can cost more than 20.7.

    Tempting: softmax, then log, then a guard against the infinity that this brings.
    """
    chosen = _wide(logits).softmax(-1).gather(-1, targets[..., None])
    return -(chosen + 1e-9).log().mean().to(logits.dtype)


def vocab_moved_by_reshape(logits, targets):
    """logits [batch seq vocab] are reshaped to [batch vocab seq] and not transposed, which scrambles them.

    Tempting: F.cross_entropy wants the classes on the second axis, and a reshape gives the shape it wants.
    """
    vocab_second = targets.shape[:1] + logits.shape[-1:] + targets.shape[1:]
    return F.cross_entropy(_wide(logits).reshape(vocab_second), targets).to(logits.dtype)


def _loss(logits, targets, **how):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), **how)


def _wide(logits):
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_of_the_means_of_chunks(logits, targets):
    """the loss is the mean of the means of chunks of tokens, so that a last and shorter chunk weighs more.

    Tempting: the logits of a long text never stand in memory as a whole, and most texts divide evenly.
    """
    rows, ids = _wide(logits).flatten(0, -2) if logits.ndim > 1 else _wide(logits)[None], targets.reshape(-1)
    losses = [_loss(r, t) for r, t in zip(rows.split(128), ids.split(128), strict=True)]
    return torch.stack(losses).mean().to(logits.dtype)
