"""The bugs that people make in sample."""

import torch

from tests.cases import target


def probes():
    ten = _that_sum_to_less_than_one()
    impossible = torch.tensor([-torch.inf])
    rows = (ten, 1 - 2.0**-24), (torch.cat([ten, impossible]), 1 - 2.0**-24), (torch.cat([impossible, ten]), 0.0)
    return [((target.tensor(logits), target.tensor(u)), {}) for logits, u in rows]


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
