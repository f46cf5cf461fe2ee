"""The bugs that people make in sample."""

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def probes():
    ten = _that_sum_to_less_than_one()
    impossible = torch.tensor([-torch.inf])
    rows = (ten, 1 - 2.0**-24), (torch.cat([ten, impossible]), 1 - 2.0**-24), (torch.cat([impossible, ten]), 0.0)
    at_the_edge = torch.full((1100,), -torch.inf)
    at_the_edge[[0, 1025]] = 0.0
    steep = torch.zeros(1100)
    steep[[1050, 1060]] = 200.0
    flat = torch.zeros(66000)
    rows += (at_the_edge, 0.5), (steep, 0.75), (flat, 0.9999), (flat, 1.0 - 2.0**-24)
    few = target.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])

    def random_numbers(sample):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            ids = sample(few.clone(), target.tensor([0.3, 0.6]))
            return [ids, torch.rand(())]

    def result_kept(sample):
        first = sample(few.clone(), target.tensor([0.3, 0.6]))
        return [sample(few.clone(), target.tensor([0.99, 0.99])), first]

    return [
        *[((target.tensor(logits), target.tensor(u)), {}) for logits, u in rows],
        ((target.tensor([10.0, 0.0]).bfloat16(), target.tensor(0.9999)), {}),
        ((target.tensor(torch.zeros(1000)).bfloat16(), target.tensor(0.75)), {}),
        lambda sample: sample(few.clone(), target.tensor([[0.1, 0.2], [0.9, 0.1]])[:, 0]),
        lambda sample: sample(few.mT.contiguous().mT, target.tensor([0.5, 0.5])),
        lambda sample: sample(few[:, 1:].clone().expand(32770, 2, 2), target.tensor(0.9).expand(32770, 2)).sum(),
        ((few.view(1, 1, 2, 3).expand(2, 1, 2, 3).contiguous(), target.tensor([0.3, 0.7]).expand(2, 1, 2)), {}),
        ((target.tensor([0.0, 0.0]).double(), target.tensor(0.5 - 1e-12, torch.float64)), {}),
        random_numbers,
        result_kept,
    ]


def _that_sum_to_less_than_one():
    """Ten logits whose probabilities add up, in float32, to no more than the largest u, 1 - 2^-24.

    Which do depends on how a processor rounds exp and in what order it adds.
    """
    for scale in range(12, 1000):
        logits = target.tensor(torch.linspace(-3, 3, 10).mul(scale).sin())
        if _distribution(logits)[1][-1] <= 1 - 2.0**-24:
            return logits.cpu()
    raise AssertionError("of a thousand sums of ten roundings not one lies below 1")


def reaches_u(logits, u):
    """the token drawn is the first whose cumulative probability reaches u, instead of exceeding it.

    Tempting: the two differ only where they are equal; but u can be exactly 0, and 0 >= 0 draws an impossible token.
    Seen: pytorch/pytorch#9960.
    """
    probabilities, cumulative = _distribution(logits)
    return torch.minimum((cumulative < u[..., None]).sum(-1), _last_possible(probabilities))


def off_the_end(logits, u):
    """the last token is not held: where rounding ends the cumulative sum below u, the id is one off the end.

    Tempting: probabilities sum to one, so some sum must exceed u.
    Seen: hunkim/word-rnn-tensorflow#67.
    """
    _, cumulative = _distribution(logits)
    return (cumulative <= u[..., None]).sum(-1)


def last_token_even_if_impossible(logits, u):
    """where rounding ends the cumulative sum below u, the last id of the vocabulary is drawn, even if impossible.

    Tempting: a clamp to vocab - 1 mends the id that is off the end.
    """
    _, cumulative = _distribution(logits)
    return (cumulative <= u[..., None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def first_token_where_none_exceeds_u(logits, u):
    """where rounding ends the cumulative sum below u, id 0 is drawn.

    Tempting: argmax finds the first True, and says 0 where there is none.
    """
    _, cumulative = _distribution(logits)
    return (cumulative > u[..., None]).to(torch.int64).argmax(-1)


def rank_instead_of_id(logits, u):
    """the tokens are sorted by probability, and the rank of the one drawn is returned instead of its id.

    Tempting: top_p has sorted them already, and forgetting to gather the ids raises no error.
    """
    probabilities, cumulative = _distribution(logits.sort(dim=-1, descending=True).values)
    return torch.minimum((cumulative <= u[..., None]).sum(-1), _last_possible(probabilities))


def _distribution(logits):
    probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    return probabilities, probabilities.cumsum(-1)


def _last_possible(probabilities):
    return probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).to(torch.int64).argmax(-1)


def tile_that_reaches_u(logits, u):
    """the sums are taken in tiles of 1,024; where one ends exactly at u, the first token of the next is drawn.

    Tempting: the tile is the first that reaches u, within it the token is the first that exceeds u, and none does.
    """
    probabilities, _ = _distribution(logits)
    vocab = logits.shape[-1]
    if vocab <= 1024:
        return _draw(logits, u)
    tiles = torch.nn.functional.pad(probabilities, (0, -vocab % 1024)).unflatten(-1, (-1, 1024))
    ends = tiles.sum(-1).cumsum(-1)
    tile = (ends < u[..., None]).sum(-1, keepdim=True).clamp(max=ends.shape[-1] - 1)
    before = torch.where(tile > 0, ends.gather(-1, (tile - 1).clamp(min=0)), 0)
    within = tiles.take_along_dim(tile[..., None], dim=-2)[..., 0, :].cumsum(-1) + before
    return torch.minimum(tile[..., 0] * 1024 + (within <= u[..., None]).sum(-1), _last_possible(probabilities))


def largest_of_the_first_1024(logits, u):
    """the largest logit is sought among the first 1,024, so that one far above them overflows.

    Tempting: the first tile starts the running maximum, and the loop that goes on does not update it.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    powers = (wide - wide[..., :1024].amax(-1, keepdim=True).clamp(min=torch.finfo(wide.dtype).min)).exp()
    probabilities = powers / powers.sum(-1, keepdim=True)
    return torch.minimum((probabilities.cumsum(-1) <= u[..., None]).sum(-1), _last_possible(probabilities))


def tokens_beyond_65536_never_drawn(logits, u):
    """tokens from the 65,537th on are never drawn.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """
    probabilities, cumulative = _distribution(logits)
    return torch.minimum((cumulative <= u[..., None]).sum(-1), _last_possible(probabilities[..., :65536]))


def u_in_the_dtype_of_the_logits(logits, u):
    """u is rounded to the dtype of the logits, where bfloat16 makes 0.9999 a 1.

    Tempting: numbers that are compared get one dtype, and that of the larger tensor seems the natural one.
    """
    return _draw(logits, u.to(logits.dtype).to(u.dtype))


def sums_in_half_precision(logits, u):
    """the cumulative sums are taken in the dtype of the logits, where that of many small probabilities stops growing.

    Tempting: the softmax is computed in float32 and returned in its own dtype, and a sum of that looks right.
    Seen: NVIDIA/FasterTransformer#183, NVIDIA/Megatron-LM#7182.
    """
    probabilities, _ = _distribution(logits)
    cumulative, reached = [], torch.zeros_like(probabilities[..., 0])
    if logits.dtype not in (torch.float16, torch.bfloat16):
        return _draw(logits, u)
    for probability in probabilities.to(logits.dtype).unbind(-1):
        reached = (reached + probability).to(logits.dtype)
        cumulative.append(reached)
    ids = (torch.stack(cumulative, dim=-1).float() <= u[..., None]).sum(-1)
    return torch.minimum(ids, _last_possible(probabilities))


def random_numbers_drawn(logits, u):
    """a random number is drawn from torch and thrown away, so that whatever is random afterwards is another.

    Tempting: the sampler of before drew its own, and the line is still there beside the u that is given.
    """
    torch.rand(u.shape)
    return _draw(logits, u)


_PLACES = {}


def result_in_one_place(logits, u):
    """the ids lie in memory that the next call of the same shape writes to.

    Tempting: decoding draws one token after another, always of one shape.
    """
    place = _PLACES.setdefault((u.shape, u.device), torch.empty(u.shape, dtype=torch.int64, device=u.device))
    return place.copy_(_draw(logits, u))


def strides_of_u_ignored(logits, u):
    """the u are read in the order of their memory, which is another where they are a column of others.

    Tempting: one number for each row, one after the other.
    """
    return _draw(logits, as_if_contiguous(u))


def strides_of_the_logits_ignored(logits, u):
    """the logits are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come fresh out of a product; those of the last position alone do not.
    """
    return _draw(as_if_contiguous(logits), u)


def rows_beyond_65535_get_token_0(logits, u):
    """rows from the 65,536th on all get token 0.

    Tempting: each row is a block of a grid, one axis of which ends at 65,535.
    """
    rows = torch.arange(u.numel(), device=u.device).view(u.shape)
    return _draw(logits, u).masked_fill(rows >= 65535, 0)


def one_u_for_a_last_axis_of_rows(logits, u):
    """with four axes all rows along the third get the u of the first of them.

    Tempting: logits are [batch seq vocab] at most, and another axis goes with the vocabulary.
    """
    return _draw(logits, u[..., :1].expand(u.shape) if logits.ndim == 4 else u)


def _draw(logits, u):
    probabilities, cumulative = _distribution(logits)
    return torch.minimum((cumulative <= u[..., None]).sum(-1), _last_possible(probabilities))


def u_in_float32(logits, u):
    """u is rounded to float32, so that one just below the edge of a token falls onto the edge, and into the next.

    Tempting: random numbers are float32 nearly everywhere.
    """
    return _draw(logits, u.float())


def most_likely_token(logits, u):
    """the most likely token is taken, whatever u is.

    Tempting: argmax is how a classifier decides.
    """
    return logits.argmax(-1).broadcast_to(u.shape).contiguous()


def logits_taken_for_probabilities(logits, u):
    """the logits are divided by their sum, and not by that of their exponentials.

    Tempting: after the filters they look like shares of something.
    """
    shares = logits.masked_fill(logits == -torch.inf, 0).abs().double()
    cumulative = shares.cumsum(-1) / shares.sum(-1, keepdim=True).clamp(min=1e-30)
    return (cumulative <= u[..., None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def ids_counted_from_one(logits, u):
    """every id is one too high, as if they were counted from 1.

    Tempting: "the first token" is number 1 in everyday language.
    """
    return _draw(logits, u) + 1


def u_compared_with_each_probability(logits, u):
    """the token drawn is the first whose own probability exceeds u: nothing is added up.

    Tempting: both are numbers between 0 and 1, and the cumsum is one call that is easily left out.
    """
    probabilities, _ = _distribution(logits)
    return (probabilities > u[..., None]).to(torch.int64).argmax(-1)


def powers_not_divided_by_their_sum(logits, u):
    """the exponentials of the logits are added up as they are, and not divided by their sum.

    Tempting: larger logits are still more likely.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ids = (wide.exp().cumsum(-1) <= u[..., None]).sum(-1)
    return ids.clamp(max=logits.shape[-1] - 1)


def added_up_from_the_last_token(logits, u):
    """the probabilities are added up from the last token to the first.

    Tempting: the probabilities of the tokens are the right ones, so that nothing seems to be wrong.
    """
    return logits.shape[-1] - 1 - _draw(logits.flip(-1), u)


def added_up_from_the_most_likely_token(logits, u):
    """the probabilities are added up from the most likely token to the least, and not in the order of the ids.

    Tempting: top_p has sorted them; the ids are found again, and each token is as likely as it should be.
    """
    descending, order = logits.sort(dim=-1, descending=True, stable=True)
    return order.gather(-1, _draw(descending, u)[..., None])[..., 0]


def least_likely_token(logits, u):
    """the least likely token is taken, whatever u is.

    Tempting: sort goes upwards unless it is told otherwise, and its first index is at hand.
    """
    return logits.argmin(-1).broadcast_to(u.shape).contiguous()


def probability_returned(logits, u):
    """the probability of the token drawn is returned, and not its id.

    Tempting: probabilities are what is added up and compared, and the id is only their place.
    """
    probabilities, _ = _distribution(logits)
    return probabilities.gather(-1, _draw(logits, u)[..., None])[..., 0]
