"""The bugs that people make in cross_entropy_backward."""

import torch
import torch.nn.functional as F

from llama.contract import check_ids
from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous


def probes():
    grad, at = target.tensor(3.0), target.tensor([2, 0])
    few = target.tensor([[1.0, 2.5, 0.3], [0.5, 4.2, 1.7]])

    def many_in_half_precision(f):
        # Probabilities of e^-8, of which float16 holds a 2048th with two bits.
        logits = target.tensor([[0.0, 8.0]], torch.float16).repeat(2048, 1)
        return 2981 * f(target.tensor(2048.0, torch.float16), logits, torch.ones_like(logits[:, 0]).long())[:, 0]

    def beside_the_target(vocab, dtype=torch.float32):
        def probe(f):
            logits = target.tensor(torch.zeros(1, vocab), dtype)
            return f(target.tensor(vocab / 2, dtype), logits, target.tensor([0]))[:, 1:]

        return probe

    def beyond_16_bits(f):
        return f(target.tensor(70000.0), target.tensor(torch.zeros(1, 70000)), target.tensor([69000]))

    def many_tokens(f):
        logits = target.tensor([[1.0, 2.0]]).repeat(65540, 1)
        return f(target.tensor(65540.0), logits, logits[:, 0].long())[-2:]

    return [
        ((grad, few[None], at[None]), {}),
        ((grad, target.tensor([[-1000.0, -1001.0], [1000.0, 999.0]]), target.tensor([0, 1])), {}),
        *[((grad, few, target.tensor([2, outside])), {}) for outside in (-100, -1, 3)],
        ((grad, few, target.tensor([0, 0])), {}),
        beside_the_target(300),
        beside_the_target(70000),
        beside_the_target(70000, torch.float16),
        many_in_half_precision,
        beyond_16_bits,
        many_tokens,
        ((grad, few.bfloat16(), at), {}),
        ((grad.bfloat16(), few, at), {}),
        lambda f: f(grad.clone(), target.tensor([[1.0, 2.5], [0.5, 4.2]]).mT, target.tensor([0, 1])),
        lambda f: f(grad.clone(), few.clone(), target.tensor([[2, 0], [1, 0]])[:, 0]),
        again(lambda: [grad, few.clone(), at], lambda grad, few, at: [grad, few.flip(0), at]),
    ]


def _wide(t):
    return t.detach().to(torch.promote_types(t.dtype, torch.float32))


def _check(logits, targets):
    check_ids("cross_entropy_backward: targets", targets, logits.shape[-1])


def _one_hot(logits, targets):
    _check(logits, targets)
    return F.one_hot(targets, logits.shape[-1]).to(torch.promote_types(logits.dtype, torch.float32))


def _gradient(grad, logits, targets, *, probabilities=None, one_hot=None, tokens=None, dtype=None):
    """What is given by name takes the place of what is right."""
    _check(logits, targets)
    towards = _wide(logits).softmax(-1) if probabilities is None else probabilities
    surplus = towards - (_one_hot(logits, targets) if one_hot is None else one_hot)
    share = _wide(grad) / (targets.numel() if tokens is None else tokens)
    return (share * surplus).to(dtype or logits.dtype)


def tokens_forgotten(grad, logits, targets):
    """it is not divided by the number of tokens, as if the loss were a sum.

    Tempting: probability less one-hot is what everybody remembers, and for a single token it is right.
    Seen: tensorflow/swift-apis#42.
    """
    return _gradient(grad, logits, targets, tokens=1)


def divided_by_the_batch(grad, logits, targets):
    """it is divided by the size of the first axis and not by the number of tokens.

    Tempting: one divides by the batch size, and it is right as long as each row is a single token.
    """
    return _gradient(grad, logits, targets, tokens=len(targets) if targets.ndim else 1)


def divided_by_the_vocabulary_too(grad, logits, targets):
    """it is divided by the number of logits and not by that of tokens.

    Tempting: `grad / logits.numel()` is what a mean over the whole tensor would have.
    """
    return _gradient(grad, logits, targets, tokens=logits.numel())


def one_hot_forgotten(grad, logits, targets):
    """the gradient is the probabilities alone: nothing is taken away at the target.

    Tempting: the derivative of the logarithm of the sum is softmax, and the loss has a second term.
    """
    return _gradient(grad, logits, targets, one_hot=0.0)


def target_alone(grad, logits, targets):
    """only the target's logit has a gradient, which is -1: the logarithm of the sum is taken for a constant.

    Tempting: the loss reads one logit of each token, and the others seem to have no part in it.
    """
    return _gradient(grad, logits, targets, probabilities=torch.zeros_like(_wide(logits)))


def target_by_its_own_probability(grad, logits, targets):
    """only the target's logit has a gradient, its probability less one, and the others have none.

    Tempting: probability less one is right at the target, and only the target is looked at.
    """
    one_hot = _one_hot(logits, targets)
    return _gradient(grad, logits, targets, probabilities=_wide(logits).softmax(-1) * one_hot)


def targets_of_all_tokens(grad, logits, targets):
    """in each row one is taken away at the targets of all tokens, and not at its own alone.

    Tempting: `p[:, targets] -= 1` reads well, but it means every row and every target.
    """
    _check(logits, targets)
    hit = torch.zeros(logits.shape[-1], dtype=_wide(logits).dtype, device=logits.device)
    hit[targets.flatten()] = 1.0
    return _gradient(grad, logits, targets, one_hot=hit)


def sign_turned(grad, logits, targets):
    """the gradient is one-hot less the probabilities: it leads uphill.

    Tempting: it is the direction in which the logits should go, and descent takes the minus.
    """
    return -_gradient(grad, logits, targets)


def upstream_ignored(grad, logits, targets):
    """the gradient is that of the loss alone, whatever grad is.

    Tempting: a loss is where backward begins, with a 1; accumulation and loss scaling begin with another number.
    Seen: SeanNaren/warp-ctc#69 (of another loss).
    """
    return _gradient(torch.ones_like(grad), logits, targets)


def softmax_forgotten(grad, logits, targets):
    """the logits themselves, less one-hot, are taken: the softmax is missing.

    Tempting: what comes out of the model is called a prediction, and prediction less truth is the gradient.
    """
    return _gradient(grad, logits, targets, probabilities=_wide(logits))


def softmax_twice(grad, logits, targets):
    """the probabilities go through softmax once more.

    Tempting: a model that ends in probabilities hands them over where logits are asked for.
    """
    return _gradient(grad, logits, targets, probabilities=_wide(logits).softmax(-1).softmax(-1))


def sigmoid_for_softmax(grad, logits, targets):
    """each logit goes through a sigmoid of its own, so that they do not sum to one.

    Tempting: sigmoid less truth is the gradient for two classes, and looks alike.
    """
    return _gradient(grad, logits, targets, probabilities=_wide(logits).sigmoid())


def no_maximum_taken_out(grad, logits, targets):
    """exp is taken of the logits as they are, so that large ones overflow and far negative ones all become 0.

    Tempting: it is the formula as written, and the maximum cancels on paper.
    """
    powers = _wide(logits).exp()
    return _gradient(grad, logits, targets, probabilities=powers / powers.sum(-1, keepdim=True))


def maximum_of_the_whole_tensor(grad, logits, targets):
    """the largest logit of the whole tensor is taken out, so that a token far below it is 0 / 0.

    Tempting: logits.max() without an axis is right for a single token.
    Seen: manassharma07/crysx_nn#7.
    """
    powers = (_wide(logits) - _wide(logits).max()).exp()
    return _gradient(grad, logits, targets, probabilities=powers / powers.sum(-1, keepdim=True))


def likeliest_token_for_the_target(grad, logits, targets):
    """one is taken away at the largest logit of each token, whatever its target is.

    Tempting: argmax gives an id for each token, which fits where an id is asked for.
    """
    _check(logits, targets)
    return _gradient(grad, logits, targets, one_hot=_one_hot(logits, logits.argmax(-1)))


def targets_shifted_again(grad, logits, targets):
    """each position is pulled to the target of the next one, though the targets are the next tokens already.

    Tempting: many libraries shift within the loss, others in the data, and one easily does both.
    """
    _check(logits, targets)
    shifted = targets.roll(-1, dims=-1) if targets.ndim else targets
    return _gradient(grad, logits, targets, one_hot=_one_hot(logits, shifted))


def minus_100_skipped(grad, logits, targets):
    """a target of -100 is left out of the mean and gets zeros, where it should be an IndexError.

    Tempting: it is the default of F.cross_entropy, and many data sets mark with it what is not to be learned.
    """
    seen = targets != -100
    found = _gradient(grad, logits, targets.masked_fill(~seen, 0), tokens=seen.sum())
    return found.masked_fill(~seen[..., None], 0)


def negative_targets_count_from_the_end(grad, logits, targets):
    """a negative target counts from the end of the vocabulary, where it should be an IndexError.

    Tempting: `p[rows, targets] -= 1` is short, and Python's indexing does the rest.
    """
    vocab = logits.shape[-1]
    return _gradient(grad, logits, torch.where((targets < 0) & (targets >= -vocab), targets + vocab, targets))


def targets_outside_have_no_one(grad, logits, targets):
    """for a target outside the vocabulary nothing is taken away, where it should be an IndexError.

    Tempting: comparing the targets with all ids makes one-hot rows, and one that fits no id a row of zeros.
    """
    one_hot = (targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)).to(_wide(logits).dtype)
    return _gradient(grad, logits, torch.zeros_like(targets), one_hot=one_hot)


def token_zero_is_padding(grad, logits, targets):
    """positions whose target is token 0 get zeros and do not count, as if it were padding.

    Tempting: 0 is the padding id of many tokenizers, but here it is a token like any other.
    """
    found = _gradient(grad, logits, targets, tokens=(targets != 0).sum().clamp(min=1))
    return found.masked_fill((targets == 0)[..., None], 0)


def rounded_before_grad(grad, logits, targets):
    """in half precision each token's share is rounded before it is multiplied by grad, and the small ones are lost.

    Tempting: it is made in the forward pass already, into the memory of the logits, and scaled later.
    Seen: NVIDIA/TransformerEngine#3193.
    """
    return grad.to(logits.dtype) * _gradient(torch.ones_like(grad), logits, targets)


def powers_added_in_half_precision(grad, logits, targets):
    """the powers are added up in the dtype of the logits, so that 70,000 equal ones in float16 are infinite.

    Tempting: with the largest logit taken out no power exceeds 1, so nothing seems to need float32.
    """
    powers = (_wide(logits) - _wide(logits).amax(-1, keepdim=True)).exp()
    total = powers.to(logits.dtype).sum(-1, keepdim=True).to(powers.dtype)
    return _gradient(grad, logits, targets, probabilities=powers / total)


def result_in_the_dtype_of_grad(grad, logits, targets):
    """the gradient has the dtype of grad, also where the logits have another.

    Tempting: a product with grad takes on its dtype, where grad is the wider one.
    """
    return _gradient(grad, logits, targets, dtype=grad.dtype)


def sum_ends_at_65536(grad, logits, targets):
    """only the first 65,536 powers of a token are summed, so that with a larger vocabulary probabilities are too large.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """
    powers = (_wide(logits) - _wide(logits).amax(-1, keepdim=True)).exp()
    return _gradient(grad, logits, targets, probabilities=powers / powers[..., :65536].sum(-1, keepdim=True))


def vocab_padded_with_zeros(grad, logits, targets):
    """beyond 256 logits the last block is filled up with zeros, which take part in the sum as logits.

    Tempting: vocabularies are padded to round numbers mostly, so that the last block is full.
    """
    vocab = logits.shape[-1]
    padded = F.pad(_wide(logits), (0, -vocab % 256 if vocab > 256 else 0))
    return _gradient(grad, logits, targets, probabilities=padded.softmax(-1)[..., :vocab])


def targets_in_16_bits(grad, logits, targets):
    """targets are kept in 16 bits, so that those beyond 65,535 count from 0 again.

    Tempting: corpora are stored so, and the first vocabularies had 50,257 tokens.
    """
    _check(logits, targets)
    return _gradient(grad, logits, targets % 65536)


def tokens_beyond_65535_left_out(grad, logits, targets):
    """tokens from the 65,536th on get zeros, though they count in the mean.

    Tempting: each token is a block of a grid, one axis of which ends at 65,535.
    """
    at = torch.arange(targets.numel(), device=logits.device).view(targets.shape)
    return _gradient(grad, logits, targets).masked_fill((at >= 65535)[..., None], 0)


def logits_without_their_strides(grad, logits, targets):
    """the logits are read in the order of the memory, whatever their strides.

    Tempting: the head of a model writes them one after the other; [seq batch] seen from the side does not lie so.
    """
    return _gradient(grad, as_if_contiguous(logits), targets)


def targets_without_their_strides(grad, logits, targets):
    """the targets are read in the order of the memory, which is another where they are a slice or transposed.

    Tempting: targets are ids in a row; x and y cut out of one longer row are not.
    """
    return _gradient(grad, logits, as_if_contiguous(targets))


def written_over_the_logits(grad, logits, targets):
    """the gradient is written over the logits, which others may still need.

    Tempting: they are the largest tensor of all, and after the loss nobody seems to look at them.
    Seen: unslothai/unsloth#5002.
    """
    return logits.detach().copy_(_gradient(grad, logits, targets)).clone()


_RESULTS = {}


def result_in_one_place(grad, logits, targets):
    """the result lies in memory that the next call of the same shape writes to.

    Tempting: it is as large as the logits, and every step of training makes one of the same shape.
    """
    found = _gradient(grad, logits, targets)
    return _RESULTS.setdefault((found.shape, found.dtype, found.device), torch.empty_like(found)).copy_(found)
