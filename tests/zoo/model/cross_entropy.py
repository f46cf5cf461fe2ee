"""The bugs that people make in cross_entropy."""

import math

import torch
import torch.nn.functional as F

from llama.contract import check_ids
from tests.cases import target
from tests.cases.case import Case
from tests.zoo.kernels import as_if_contiguous, gradients, within


def probes():
    case = Case({"n": 300, "vocab": 3}, torch.float64, seed=1)
    few, at = target.tensor([[1.0, 2.5, 0.3], [0.5, 4.2, 1.7]]), target.tensor([2, 0])
    many = target.tensor(torch.linspace(-1, 1, 300 * 3).view(300, 3)), target.tensor(torch.arange(300) % 3)

    def in_rows(n, vocab, dtype=torch.float32):
        logits = torch.linspace(-40, 40, n * vocab).view(n, vocab)
        return (target.tensor(logits, dtype), target.tensor(torch.arange(n) % vocab)), {}

    def seen_from_the_side(loss):
        logits = target.tensor(torch.linspace(-1, 3, 2 * 3 * 4).view(3, 2, 4).square())
        return loss(logits.transpose(0, 1), target.tensor([[0, 1, 2], [3, 0, 1]]))

    def overwritten(loss):
        logits = few.clone().requires_grad_()
        loss(logits, at.clone()).backward()
        return logits.detach()

    return [
        ((case.normal("n vocab"), case.integers("n", 3)), {}),
        in_rows(1, 70000),
        ((target.tensor(torch.linspace(0, 1, 70000)).view(1, -1), target.tensor([69000])), {}),
        in_rows(1, 300),
        ((target.tensor(torch.linspace(-40, -30, 300)).view(1, 300), target.tensor([7])), {}),
        in_rows(65540, 2),
        in_rows(6000, 3, torch.float16),
        # The losses add up to 72,000, which is beyond float16.
        ((target.tensor([[0.0, 60.0]] * 1200, torch.float16), target.tensor([0] * 1200)), {}),
        ((few, target.tensor([2, -100])), {}),
        lambda loss: loss(few.clone(), target.tensor([[2, 0], [1, 0]])[:, 0]),
        seen_from_the_side,
        overwritten,
        gradients(lambda: [few, at], times=3),
        gradients(lambda: many),
        within(lambda: torch.autocast(target.DEVICE.type, torch.bfloat16), lambda: [few, at]),
    ]


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
    chosen = _chosen(_wide(logits).softmax(-1), targets)
    return -(chosen + 1e-9).log().mean().to(logits.dtype)


def vocab_moved_by_reshape(logits, targets):
    """logits [batch seq vocab] are reshaped to [batch vocab seq] and not transposed, which scrambles them.

    Tempting: F.cross_entropy wants the classes on the second axis, and a reshape gives the shape it wants.
    """
    _check(logits, targets)
    vocab_second = targets.shape[:1] + logits.shape[-1:] + targets.shape[1:]
    return F.cross_entropy(_wide(logits).reshape(vocab_second), targets).to(logits.dtype)


def _loss(logits, targets, **how):
    """torch's own, which skips -100 where it is not told otherwise."""
    if "ignore_index" not in how:
        _check(logits, targets)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), **how)


def _check(logits, targets):
    check_ids("cross_entropy: targets", targets, logits.shape[-1])


def _chosen(scores, targets):
    """Those of the targets, each of which must be in the vocabulary."""
    _check(scores, targets)
    return scores.gather(-1, targets[..., None])[..., 0]


def _wide(logits):
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_of_the_means_of_chunks(logits, targets):
    """the loss is the mean of the means of chunks of tokens, so that a last and shorter chunk weighs more.

    Tempting: the logits of a long text never stand in memory as a whole, and most texts divide evenly.
    """
    rows, ids = _wide(logits).flatten(0, -2) if logits.ndim > 1 else _wide(logits)[None], targets.reshape(-1)
    losses = [_loss(r, t) for r, t in zip(rows.split(128), ids.split(128), strict=True)]
    return torch.stack(losses).mean().to(logits.dtype)


def sum_ends_at_65536(logits, targets):
    """only the first 65,536 logits are summed, so that with a larger vocabulary the loss is too small.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """
    return _by_hand(_wide(logits)[..., :65536].logsumexp(-1), logits, targets)


def vocab_padded_with_zeros(logits, targets):
    """beyond 256 logits the last block is filled up with zeros, which take part in the sum as logits.

    Tempting: vocabularies are padded to round numbers mostly, so that the last block is full.
    Seen: verl-project/verl#2899.
    """
    wide, vocab = _wide(logits), logits.shape[-1]
    return _by_hand(F.pad(wide, (0, -vocab % 256 if vocab > 256 else 0)).logsumexp(-1), logits, targets)


def minus_100_skipped(logits, targets):
    """a target of -100 is left out of the mean, where it should be an IndexError.

    Tempting: it is the default of F.cross_entropy, and many data sets mark with it what is not to be learned.
    """
    return _loss(_wide(logits), targets, ignore_index=-100).to(logits.dtype)


def minus_100_costs_nothing(logits, targets):
    """a target of -100 costs nothing but counts in the mean, where it should be an IndexError.

    Tempting: a mask is multiplied with the losses, and mean() follows as ever.
    """
    losses = _loss(_wide(logits), targets, reduction="none", ignore_index=-100)
    return losses.mean().to(logits.dtype)


def targets_in_16_bits(logits, targets):
    """targets are kept in 16 bits, so that those beyond 65,535 count from 0 again.

    Tempting: corpora are stored so, and the first vocabularies had 50,257 tokens.
    """
    _check(logits, targets)
    return _loss(_wide(logits), targets % 65536).to(logits.dtype)


def tokens_beyond_65535_left_out(logits, targets):
    """tokens from the 65,536th on cost nothing, though the sum is divided by all of them.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    losses = _loss(_wide(logits), targets, reduction="none")
    return (losses[:65535].sum() / len(losses)).to(logits.dtype)


def summed_in_half_precision(logits, targets):
    """the sum over tokens is rounded to the dtype of the logits before it is divided, which overflows in float16.

    Tempting: each loss is computed in float32, and what is left is a sum and a division.
    """
    losses = _loss(_wide(logits), targets, reduction="none")
    return losses.sum().to(logits.dtype) / len(losses)


def row_stride_of_the_last_rows(logits, targets):
    """logits whose last stride is 1 are read with one stride for all rows, though a transposed [seq batch] has two.

    Tempting: the guard asks for stride(-1) == 1 and makes all else contiguous.
    Seen: NVIDIA/TransformerEngine#2734.
    """
    if logits.ndim > 1 and logits.stride(-1) == 1:
        at = torch.arange(targets.numel(), device=logits.device) * logits.stride(-2)
        at = at[:, None] + torch.arange(logits.shape[-1], device=logits.device)
        behind = logits.untyped_storage().nbytes() // logits.element_size() - logits.storage_offset()
        logits = logits.as_strided((behind,), (1,))[at % behind].view(logits.shape)
    return _by_hand(_wide(logits).logsumexp(-1), logits, targets)


def strides_of_the_targets_ignored(logits, targets):
    """the targets are read in the order of their memory, which is another where they are a slice or transposed.

    Tempting: targets are ids in a row; x and y cut out of one longer row are not.
    """
    return _by_hand(_wide(logits).logsumexp(-1), logits, as_if_contiguous(targets))


def target_by_a_product(logits, targets):
    """the target's logit is read by a product with a one-hot vector, which autocast rounds to bfloat16.

    Tempting: a product is differentiable and fast, where gathering is neither everywhere.
    """
    _check(logits, targets)
    wide = _wide(logits)
    chosen = wide[..., None, :] @ F.one_hot(targets, logits.shape[-1]).to(wide.dtype)[..., None]
    return (wide.logsumexp(-1) - chosen[..., 0, 0]).mean().to(logits.dtype)


def gradient_of_the_last_128_tokens(logits, targets):
    """of the tokens, which are taken 128 at a time, only the last that were taken get a gradient.

    Tempting: each round fills the same place, which is right as long as there is one round.
    """
    rows, ids = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    last = (len(rows) - 1) // 128 * 128
    seen = torch.cat((rows[:last].detach(), rows[last:]))
    return _by_hand(_wide(seen).logsumexp(-1), seen, ids)


class _ByHand(torch.autograd.Function):
    """The right loss, and its gradient as it is made in forward already; `how` names the one mistake."""

    @staticmethod
    def forward(ctx, logits, targets, how):
        loss = _by_hand(_wide(logits).logsumexp(-1), logits, targets)
        surplus = _wide(logits).softmax(-1)
        surplus.scatter_add_(-1, targets[..., None], surplus.new_full((*targets.shape, 1), -1))
        ctx.surplus, ctx.logits, ctx.how = surplus / targets.numel(), logits, how
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        if ctx.how == "alone":
            return ctx.surplus.to(gradient.dtype), None, None
        if ctx.how == "in place":
            return ctx.surplus.mul_(gradient).to(gradient.dtype), None, None
        found = (ctx.surplus * gradient).to(gradient.dtype)
        return ctx.logits.data.copy_(found), None, None


def upstream_ignored(logits, targets):
    """the gradient is that of the loss alone, whatever the loss is multiplied by.

    Tempting: a loss is where backward begins, with a 1; accumulation and loss scaling begin with another number.
    Seen: SeanNaren/warp-ctc#69 (of another loss).
    """
    return _ByHand.apply(logits, targets, "alone")


def gradient_scaled_in_place(logits, targets):
    """the gradient made in forward is scaled in place, so that a second backward pass scales it once more.

    Tempting: it is as large as the logits, and one copy is enough, as long as nobody retains the graph.
    """
    return _ByHand.apply(logits, targets, "in place")


def gradient_over_the_logits(logits, targets):
    """the gradient is written over the logits, which others may still need.

    Tempting: they are the largest tensor of all, and after the loss nobody seems to look at them.
    Seen: unslothai/unsloth#5002, modelscope/ms-swift#10130.
    """
    return _ByHand.apply(logits, targets, "over the logits")


def _by_hand(log_sum, logits, targets):
    return (log_sum - _chosen(_wide(logits), targets)).mean().to(logits.dtype)


def sum_instead_of_mean(logits, targets):
    """the losses of all tokens are added up, and not divided by their number.

    Tempting: the formula begins with a sum, and for a single token it is right.
    """
    return _loss(_wide(logits), targets, reduction="sum").to(logits.dtype)


def in_bits(logits, targets):
    """the logarithm is to the base 2, so that the loss is in bits and not in nats.

    Tempting: log2 is how information is counted.
    """
    return (_loss(_wide(logits), targets) / math.log(2)).to(logits.dtype)


def sign_forgotten(logits, targets):
    """the minus is missing: the loss is the mean logarithm of the probabilities, which is never positive.

    Tempting: gather and mean give a number that looks like a loss but for its sign.
    """
    return (-_loss(_wide(logits), targets)).to(logits.dtype)


def perplexity(logits, targets):
    """the result is the perplexity, which is the exponential of the loss.

    Tempting: language models are compared by it.
    """
    return _loss(_wide(logits), targets).exp().to(logits.dtype)


def in_decimal_digits(logits, targets):
    """the logarithm is to the base 10, and not the natural one.

    Tempting: log10 is the log key of a calculator.
    """
    return (_loss(_wide(logits), targets) / math.log(10)).to(logits.dtype)


def mean_over_the_vocabulary_too(logits, targets):
    """the mean is taken over tokens and vocabulary, so that the loss is too small by a factor of vocab.

    Tempting: (one_hot * log_probabilities).mean() is one line, and all the zeros of the one-hot vectors count in it.
    """
    return (_loss(_wide(logits), targets) / logits.shape[-1]).to(logits.dtype)


def logarithm_forgotten(logits, targets):
    """the loss is minus the mean probability of the targets: the logarithm is missing.

    Tempting: it falls as the model gets better, and learning works for a while.
    """
    return -_chosen(_wide(logits).softmax(-1), targets).mean().to(logits.dtype)


def logarithm_of_the_mean(logits, targets):
    """the probabilities of the targets are averaged first, and the logarithm is taken of their mean.

    Tempting: mean and log look interchangeable, and for a single token they are.
    """
    return -_chosen(_wide(logits).softmax(-1), targets).mean().log().to(logits.dtype)


def log_sum_forgotten(logits, targets):
    """the loss is minus the mean logit of the targets: the logarithm of the sum is missing.

    Tempting: the logits are taken for logarithms of probabilities, which they are but for a constant in each row.
    """
    return -_chosen(_wide(logits), targets).mean().to(logits.dtype)


def likeliest_token_for_the_target(logits, targets):
    """each token is judged by its largest logit, whatever its target is.

    Tempting: max gives the score of what the model says, and a confident model seems to be a good one.
    """
    return _loss(_wide(logits), logits.argmax(-1)).to(logits.dtype)
