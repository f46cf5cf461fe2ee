"""The bugs that people make in speculative_accept."""

import math

import torch

from tests.cases import target
from tests.zoo.kernels import as_if_contiguous


def _probabilities(logits, dtype=torch.float64):
    return logits.to(dtype).softmax(dim=-1)


def _kept(p_draft, p_target, draft_ids, u):
    """Which drafts pass, each by itself."""
    of_draft, of_target = (p[: len(draft_ids)].gather(1, draft_ids[:, None])[:, 0] for p in (p_draft, p_target))
    return u.to(p_draft.dtype) * of_draft < of_target


def _before_the_first_refusal(passed):
    return int(passed.cumprod(dim=0).sum())


def _left(p_draft, p_target):
    """What is drawn from after a refusal."""
    difference = (p_target - p_draft).clamp(min=0)
    return difference if difference.sum() > 0 else p_target


def _drawn(weights, v):
    cumulative = (weights / weights.sum()).cumsum(dim=0)
    return torch.minimum((cumulative <= v).sum(), weights.nonzero()[-1, 0])


def _accept(
    draft_logits, target_logits, draft_ids, u, v, dtype=torch.float64, passed=None, left=_left, drawn=_drawn, last=-1
):
    """A right layer, of which one part may be replaced."""
    p_draft, p_target = _probabilities(draft_logits, dtype), _probabilities(target_logits, dtype)
    if passed is None:
        passed = _kept(p_draft, p_target, draft_ids, u)
    n = _before_the_first_refusal(passed)
    weights = left(p_draft[n], p_target[n]) if n < len(draft_ids) else p_target[last]
    return torch.cat((draft_ids[:n], drawn(weights, v.double())[None]))


def probes():
    """Draws at limits and at both ends, filtered logits, half precision, large vocabularies, and other layouts."""

    def call(drafted, wanted, ids, u, v, dtype=None, draws=torch.float64):
        def probe(speculative_accept):
            logits = [_logits(of, dtype) for of in (drafted, wanted)]
            numbers = [target.tensor(torch.tensor(of, dtype=torch.float64), draws) for of in (u, v)]
            return speculative_accept(*logits, target.tensor(torch.tensor(ids, dtype=torch.int64)), *numbers)

        return probe

    def _logits(rows, dtype):
        logits = torch.tensor([[math.log(share) if share else -math.inf for share in row] for row in rows])
        return target.tensor(logits.reshape(len(rows), -1) if rows else torch.zeros(0, 4), dtype)

    def after_none(logits, v):
        """No drafts, one row of the target."""

        def probe(speculative_accept):
            row = target.tensor(logits.clone())[None]
            nothing = target.tensor(torch.zeros(0))
            return speculative_accept(row[:0], row, nothing.long(), nothing, target.tensor(v, torch.float64))

        return probe

    def refused(drafted, wanted, v):
        """Draft 0 is refused, and the draw in its place comes from these rows of logits."""

        def probe(speculative_accept):
            rows = [target.tensor(of.clone())[None] for of in (drafted, wanted)]
            u = target.tensor([0.999], torch.float64)
            ids = target.tensor([0])
            return speculative_accept(rows[0], torch.cat([rows[1]] * 2), ids, u, target.tensor(v, torch.float64))

        return probe

    def _few():
        logits = torch.linspace(-2, 3, 6 * 5).square().sin().view(6, 5)
        drafted, wanted = target.tensor(logits[:5]), target.tensor((2 * logits + 1).cos())
        ids = target.tensor([1, 3, 0, 4, 2])
        return [drafted, wanted, ids, target.tensor([0.1, 0.2, 0.05, 0.3, 0.1]), target.tensor(0.4)]

    def beside_a_draft_in_half_precision(speculative_accept):
        drafted, wanted, ids = torch.zeros(1, 2).bfloat16(), torch.tensor([[0.0, 0.0], [1.002, 1.0]]), torch.tensor([0])
        return speculative_accept(*map(target.tensor, (drafted, wanted, ids, [0.5], 0.5002)))

    def in_columns(speculative_accept):
        drafted, wanted, ids, u, _ = _few()
        drafted, wanted = (of.mT.contiguous().mT for of in (drafted, wanted))
        return [speculative_accept(drafted, wanted, ids, 3 * u, target.tensor(v)) for v in (0.1, 0.4, 0.7, 0.9)]

    def every_second_u(speculative_accept):
        drafted, wanted, ids, u, v = _few()
        spread = torch.stack((u, 1 - u), dim=1)[:, 0]
        return speculative_accept(drafted, wanted, ids, spread, v)

    def every_second_id(speculative_accept):
        drafted, wanted, ids, u, v = _few()
        spread = torch.stack((ids, 4 - ids), dim=1)[:, 0]
        return speculative_accept(drafted, wanted, spread, u * 0, v)

    def two_steps(speculative_accept):
        drafted, wanted, ids, u, v = _few()
        first = speculative_accept(drafted, wanted, ids, u, v)
        return [speculative_accept(drafted, wanted, ids.flip(0), u, v), first]

    def arguments_afterwards(speculative_accept):
        args = _few()
        return [speculative_accept(*args), *args]

    def random_numbers(speculative_accept):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return [speculative_accept(*_few()), torch.rand(())]

    flat, between = [(1, 1, 1, 1)], torch.linspace(-3, 3, 12).mul(39).sin()
    less = between.clone()
    less[[0, 10, 11]] = -3.0
    more = between.clone()
    more[[0, 10, 11]] = torch.tensor([2.0, 1.0, 1.0])
    ten, just_below_one = torch.linspace(-3, 3, 10).mul(2).sin(), 1 - 2.0**-53
    never = torch.full((3,), -torch.inf)
    return [
        call([(1, 1, 0, 0)], flat * 2, [0], [0.5], 0.25),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.5], 0.5),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.75], 0.0),
        call([(1, 1, 0)], [(0, 1, 1)] * 2, [0], [0.0], 0.0),
        call([(1, 0, 1, 1, 1)], [(1, 0, 1, 1, 1)] * 2, [1], [0.0], 0.5),
        call([(1, 0, 1, 1, 1)], [(1, 0, 1, 1, 1)] * 2, [1], [0.0], 0.0),
        call([(0, 1)], [(1, 1), (0, 1)], [0], [0.9], 0.5),
        *[call([(7, 3, 3, 3)], [(3, 4, 5, 4), *flat], [0], [0.9], v) for v in (0.1, 0.3, 0.6, 0.9)],
        *[call([(7, 3, 3, 3)], [(3, 4, 5, 4), *flat], [0], [u], 0.6) for u in (0.15, 0.3, 0.5)],
        *[
            call([(7, 3, 3, 3), *flat], [(7, 3, 3, 3), (1, 1, 1, 9), (9, 1, 1, 1)], [0, 0], [0.3, u], 0.5)
            for u in (0.2, 0.6)
        ],
        call([(98, 1, 1)], [(98, 1, 1), (0, 1, 3)], [0], [0.5], 0.1),
        call([], [(1, 3, 0, 4)], [], [], 0.3),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.5 - 1e-12], 0.1),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.5 + 1e-12], 0.1),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.1], 0.5 - 1e-12),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.4999], 0.1, torch.bfloat16, torch.float32),
        call([(1, 1, 0, 0)], flat * 2, [0], [0.1], 0.4999, torch.bfloat16, torch.float32),
        after_none(torch.zeros(4096).bfloat16(), 2049.5 / 4096),
        after_none(torch.zeros(66_000), 65_999.5 / 66_000),
        after_none(torch.zeros(131_072), 100_001.5 / 131_072),
        after_none(ten, just_below_one),
        after_none(torch.cat((ten, never)), just_below_one),
        after_none(torch.cat((never, ten)), 0.0),
        after_none(torch.tensor([1e4, 1e4 + 1, 1e4 - 1]), 0.9),
        refused(more, less, just_below_one),
        refused(more, less, 0.0),
        beside_a_draft_in_half_precision,
        in_columns,
        every_second_u,
        every_second_id,
        two_steps,
        arguments_afterwards,
        random_numbers,
    ]


def kept_at_the_limit(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept where u · p_draft equals p_target too, so that with u = 0 an impossible one is.

    Tempting: the two differ only where they are equal; but u can be exactly 0, and so can p_target.
    Seen: sgl-project/sglang#35798.
    """
    p_draft, p_target = _probabilities(draft_logits), _probabilities(target_logits)
    of_draft, of_target = (p[: len(u)].gather(1, draft_ids[:, None])[:, 0] for p in (p_draft, p_target))
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=u.double() * of_draft <= of_target)


def ratio_upside_down(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept while u · p_target < p_draft: the two probabilities have changed places.

    Tempting: the papers call the target p in one and q in the other.
    """
    p_draft, p_target = _probabilities(draft_logits), _probabilities(target_logits)
    passed = _kept(p_target, p_draft, draft_ids, u)
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def kept_by_the_target_alone(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept while u < p_target, as if the draft model had been sure of it.

    Tempting: for a draft that is the most likely token, and not drawn, it is right.
    Seen: SafeAILab/EAGLE#329.
    """
    p_target = _probabilities(target_logits)
    passed = u.double() < p_target[: len(u)].gather(1, draft_ids[:, None])[:, 0]
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def ratio_to_the_most_likely_token(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept while u times the largest p_target is below its own: the draft model is not asked.

    Tempting: it needs no probabilities of the draft model, and likely tokens are kept more often.
    Seen: 1bit-MONSTER/1bit-MONSTER#637.
    """
    p_target = _probabilities(target_logits)[: len(u)]
    passed = u.double() * p_target.amax(dim=-1) < p_target.gather(1, draft_ids[:, None])[:, 0]
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def kept_where_the_target_draws_it(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept where it is what the target would draw with u.

    Tempting: it is the rule for temperature 0; and drafts that both models like are kept.
    Seen: ml-explore/mlx-swift-lm#459.
    """
    p_target = _probabilities(target_logits)
    drawn = [_drawn(p, number) for p, number in zip(p_target, u.double(), strict=False)]
    passed = torch.stack(drawn) == draft_ids if drawn else u.bool()
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def kept_where_most_likely(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept where it is the target's most likely token, whatever u is.

    Tempting: so it is for temperature 0, where speculation was tried first.
    """
    passed = _probabilities(target_logits)[: len(u)].argmax(dim=-1) == draft_ids
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def kept_too_where_the_target_draws_it(draft_logits, target_logits, draft_ids, u, v):
    """a draft is kept by its ratio, and also where the target draws that very token with v.

    Tempting: the target has drawn its own token in any case, and where the two agree there seems nothing to refuse.
    Seen: alibaba/rtp-llm#1295.
    """
    p_draft, p_target = _probabilities(draft_logits), _probabilities(target_logits)
    passed = _kept(p_draft, p_target, draft_ids, u)
    if len(u):
        passed = passed | (torch.stack([_drawn(p, v.double()) for p in p_target[: len(u)]]) == draft_ids)
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def first_draft_never_refused(draft_logits, target_logits, draft_ids, u, v):
    """the first draft is always kept.

    Tempting: the target is asked for what follows each draft, and nothing was asked before the first.
    Seen: ohdearquant/lattice#243.
    """
    passed = _kept(_probabilities(draft_logits), _probabilities(target_logits), draft_ids, u)
    passed[:1] = True
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def compared_with_the_next_row(draft_logits, target_logits, draft_ids, u, v):
    """each draft is compared with the row of the target behind its own.

    Tempting: of k + 1 rows the last k are taken, as where the first belongs to the token before.
    """
    p_draft, p_target = _probabilities(draft_logits), _probabilities(target_logits)
    passed = _kept(p_draft, p_target[1:], draft_ids, u)
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def one_u_for_all_drafts(draft_logits, target_logits, draft_ids, u, v):
    """every draft is judged by the first u.

    Tempting: one random number is one decision; but the next draft needs one of its own.
    """
    return _accept(draft_logits, target_logits, draft_ids, u[:1].expand_as(u), v)


def u_for_the_draw_too(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the draw is made with the u that refused, and not with v.

    Tempting: it is a random number of that position; but where it refused it is never small.
    Seen: vllm-project/vllm-ascend#16370.
    """
    n = _before_the_first_refusal(_kept(*map(_probabilities, (draft_logits, target_logits)), draft_ids, u))
    return _accept(draft_logits, target_logits, draft_ids, u, u[n] if n < len(u) else v)


def all_that_pass_counted(draft_logits, target_logits, draft_ids, u, v):
    """as many drafts are kept as pass their test, also those that pass behind one that is refused.

    Tempting: the sum of a mask is a count; that of its running product is meant.
    Seen: vllm-project/vllm#2658.
    """
    passed = _kept(_probabilities(draft_logits), _probabilities(target_logits), draft_ids, u)
    passed = torch.arange(len(u), device=u.device) < passed.sum()
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def refused_draft_left_in(draft_logits, target_logits, draft_ids, u, v):
    """the refused draft stays in the result, and the draw that should be in its place comes behind it.

    Tempting: the drafts are in the text already, and what is drawn is appended to it.
    Seen: lucidrains/speculative-decoding#3.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    return torch.cat((draft_ids[: len(ids)], ids[-1:])) if len(ids) <= len(u) else ids


def nothing_drawn_after_a_refusal(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal nothing is drawn: the result ends before the refused draft, and may be empty.

    Tempting: the next step begins there anyway; but it would draw from the target, and not from the difference.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    return ids[:-1].clone() if len(ids) <= len(u) else ids


def nothing_drawn_where_all_are_kept(draft_logits, target_logits, draft_ids, u, v):
    """where all drafts are kept nothing more is drawn.

    Tempting: k drafts went in, and k ids come out.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    return ids[: len(u)].clone()


def filled_up_with_minus_one(draft_logits, target_logits, draft_ids, u, v):
    """the result always has k + 1 ids, those behind the drawn one being -1.

    Tempting: one shape for every step, of which the caller reads as much as is valid.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    return torch.nn.functional.pad(ids, (0, len(u) + 1 - len(ids)), value=-1)


def last_draw_from_the_row_before(draft_logits, target_logits, draft_ids, u, v):
    """where all drafts are kept, the draw comes from the row of the last draft, not from the one behind it.

    Tempting: rows are counted by the drafts, and -1 is the last of k.
    """
    return _accept(draft_logits, target_logits, draft_ids, u, v, last=max(len(u) - 1, 0))


def draw_from_the_target(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the target itself is drawn from, and not what it has more than the draft.

    Tempting: it is the distribution that is wanted; but drafts that were kept have taken a part of it already.
    Seen: ShopeeLLM/Spec-RL#14 (on purpose).
    """
    return _accept(draft_logits, target_logits, draft_ids, u, v, left=lambda p_draft, p_target: p_target)


def only_the_refused_token_taken_out(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the target is drawn from without the refused token, all others being as likely as before.

    Tempting: for a draft model that is sure of its token it is right, and it was refused, after all.
    Seen: SafeAILab/EAGLE#20.
    """
    passed = _kept(_probabilities(draft_logits), _probabilities(target_logits), draft_ids, u)
    n = _before_the_first_refusal(passed)

    def left(p_draft, p_target):
        others = p_target.clone()
        others[draft_ids[n]] = 0
        return others if others.sum() > 0 else p_target

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def softmax_of_the_difference(draft_logits, target_logits, draft_ids, u, v):
    """the difference is made a distribution by a softmax, where its zeros get a share too.

    Tempting: a softmax is how numbers become probabilities; but these are some already.
    Seen: huggingface/transformers#28508.
    """

    def left(p_draft, p_target):
        return (p_target - p_draft).clamp(min=0).softmax(dim=-1)

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def difference_without_its_sign(draft_logits, target_logits, draft_ids, u, v):
    """the size of the difference is drawn from, also where the draft model has more.

    Tempting: a weight must not be negative, and abs makes it so.
    """

    def left(p_draft, p_target):
        difference = (p_target - p_draft).abs()
        return difference if difference.sum() > 0 else p_target

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def difference_the_other_way_round(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the draw comes from what the draft model has more than the target.

    Tempting: draft less target reads like the order of the arguments.
    """

    def left(p_draft, p_target):
        difference = (p_draft - p_target).clamp(min=0)
        return difference if difference.sum() > 0 else p_target

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def difference_not_divided_by_its_sum(draft_logits, target_logits, draft_ids, u, v):
    """v is compared with the sums of the difference as they are, so that the last token that is left gets the rest.

    Tempting: torch.multinomial takes weights of any sum; a cumulative sum does not.
    """

    def drawn(weights, v):
        return torch.minimum((weights.cumsum(dim=0) <= v).sum(), weights.nonzero()[-1, 0])

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def difference_one_row_late(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the draw comes from the rows behind that of the refused draft.

    Tempting: the refusal is noticed when the next draft has its turn, and the number of the row has moved on.
    Seen: openvinotoolkit/openvino.genai#4190.
    """
    p_draft, p_target = _probabilities(draft_logits), _probabilities(target_logits)
    n = _before_the_first_refusal(_kept(p_draft, p_target, draft_ids, u))

    def left(_, __):
        return _left(p_draft[n + 1], p_target[n + 1]) if n + 1 < len(u) else p_target[n + 1]

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def nothing_left_is_token_0(draft_logits, target_logits, draft_ids, u, v):
    """where the difference leaves nothing it is divided by zero, and no sum is found that exceeds v: token 0 is drawn.

    Tempting: a token that both models hold for equally likely is kept; but not one that is impossible for both.
    Seen: jaymody/speculative-sampling#5.
    """

    def left(p_draft, p_target):
        difference = (p_target - p_draft).clamp(min=0)
        return difference if difference.sum() > 0 else (torch.arange(len(p_target), device=v.device) == 0).double()

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def nothing_left_is_uniform(draft_logits, target_logits, draft_ids, u, v):
    """every token is left a tiny share, so that with v = 0 an impossible one is drawn, and any where nothing is left.

    Tempting: it spares the question whether the sum is zero.
    Seen: vllm-project/vllm#2336.
    """

    def left(p_draft, p_target):
        return (p_target - p_draft).clamp(min=torch.finfo(torch.float32).tiny)

    return _accept(draft_logits, target_logits, draft_ids, u, v, left=left)


def most_likely_of_the_difference(draft_logits, target_logits, draft_ids, u, v):
    """after a refusal the token of which most is left is taken, whatever v is.

    Tempting: argmax is how a token is chosen at temperature 0.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    n = len(ids) - 1
    if n < len(u):
        ids[-1] = _left(*(_probabilities(of[n]) for of in (draft_logits, target_logits))).argmax()
    return ids


def most_likely_token_at_the_end(draft_logits, target_logits, draft_ids, u, v):
    """where all drafts are kept, the most likely token follows, whatever v is.

    Tempting: it is a gift on top of the drafts, and any good token seems to do.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    if len(ids) > len(u):
        ids[-1] = target_logits[-1].argmax()
    return ids


def reaches_v(draft_logits, target_logits, draft_ids, u, v):
    """the token drawn is the first whose cumulative probability reaches v, instead of exceeding it.

    Tempting: the two differ only where they are equal; but v can be exactly 0, and 0 >= 0 draws an impossible token.
    """

    def drawn(weights, v):
        cumulative = (weights / weights.sum()).cumsum(dim=0)
        return torch.minimum((cumulative < v).sum(), weights.nonzero()[-1, 0])

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def off_the_end(draft_logits, target_logits, draft_ids, u, v):
    """the last token is not held: where rounding ends the sums below v, the id is one off the end.

    Tempting: probabilities sum to one, so some sum must exceed v.
    Seen: iree-org/iree-turbine#890 (a number far off the end).
    """

    def drawn(weights, v):
        return ((weights / weights.sum()).cumsum(dim=0) <= v).sum()

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def last_token_even_if_nothing_is_left_of_it(draft_logits, target_logits, draft_ids, u, v):
    """where rounding ends the sums below v, the last id of the vocabulary is drawn, even if it has no share.

    Tempting: a clamp to vocab - 1 mends the id that is off the end.
    """

    def drawn(weights, v):
        return ((weights / weights.sum()).cumsum(dim=0) <= v).sum().clamp(max=len(weights) - 1)

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def probabilities_in_float32(draft_logits, target_logits, draft_ids, u, v):
    """probabilities, u, v and sums are rounded to float32, so that what is close to a limit may fall behind it.

    Tempting: the models compute in half precision, so that float32 seems to be more than enough.
    """
    return _accept(draft_logits, target_logits, draft_ids, u.float(), v.float(), dtype=torch.float32, drawn=_in_float32)


def _in_float32(weights, v):
    return _drawn(weights.float(), v.float())


def probabilities_in_the_dtype_of_the_logits(draft_logits, target_logits, draft_ids, u, v):
    """probabilities have the dtype of the logits, where half precision rounds them and their sums.

    Tempting: softmax returns what it was given, unless it is told otherwise.
    Seen: deepseek-ai/DeepSpec#31 (where the drafts are drawn).
    """
    p_draft, p_target = (of.softmax(dim=-1).double() for of in (draft_logits, target_logits))
    n = _before_the_first_refusal(_kept(p_draft, p_target, draft_ids, u))
    weights = _left(p_draft[n], p_target[n]) if n < len(u) else p_target[-1]
    cumulative = (weights / weights.sum()).to(target_logits.dtype).cumsum(dim=0).double()
    drawn = torch.minimum((cumulative <= v.double()).sum(), weights.nonzero()[-1, 0])
    return torch.cat((draft_ids[:n], drawn[None]))


def u_and_v_in_the_dtype_of_the_logits(draft_logits, target_logits, draft_ids, u, v):
    """u and v are rounded to the dtype of the logits.

    Tempting: numbers that are compared get one dtype, and that of the larger tensor seems the natural one.
    """
    u, v = (of.to(target_logits.dtype).to(of.dtype) for of in (u, v))
    return _accept(draft_logits, target_logits, draft_ids, u, v)


def target_in_the_dtype_of_the_draft(draft_logits, target_logits, draft_ids, u, v):
    """the target's logits are rounded to the dtype of the draft's.

    Tempting: the two are subtracted from each other, and the small model is the one that runs in half precision.
    """
    return _accept(draft_logits, target_logits.to(draft_logits.dtype), draft_ids, u, v)


def logits_not_normalised(draft_logits, target_logits, draft_ids, u, v):
    """drafts are judged by the exponentials of the logits, which are not divided by their sums.

    Tempting: a ratio of two exponentials looks like one of probabilities; but each model has a sum of its own.
    """
    rows = torch.arange(len(u), device=u.device)
    ratio = (target_logits[rows, draft_ids].double() - draft_logits[rows, draft_ids].double()).exp()
    passed = u.double() < ratio.nan_to_num(nan=0.0, posinf=torch.inf)
    return _accept(draft_logits, target_logits, draft_ids, u, v, passed=passed)


def tokens_beyond_65536_never_drawn(draft_logits, target_logits, draft_ids, u, v):
    """tokens from the 65,537th on are never drawn.

    Tempting: a row is one block, and 65,536 is as large as a block of a kernel gets.
    """

    def drawn(weights, v):
        cumulative = (weights / weights.sum()).cumsum(dim=0)
        return torch.minimum((cumulative <= v).sum(), weights[:65536].nonzero()[-1, 0])

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def added_up_from_the_most_likely_token(draft_logits, target_logits, draft_ids, u, v):
    """what is drawn from is added up from the most likely token to the least, and not in the order of the ids.

    Tempting: top_p has sorted them; the ids are found again, and each token is as likely as it should be.
    """

    def drawn(weights, v):
        descending, order = weights.sort(descending=True, stable=True)
        return order[_drawn(descending, v)]

    return _accept(draft_logits, target_logits, draft_ids, u, v, drawn=drawn)


def strides_of_the_logits_ignored(draft_logits, target_logits, draft_ids, u, v):
    """the logits are read in the order of their memory, which is another where they are transposed or a slice.

    Tempting: they come fresh out of a product; those of some positions, or of a part of the vocabulary, do not.
    """
    return _accept(as_if_contiguous(draft_logits), as_if_contiguous(target_logits), draft_ids, u, v)


def strides_of_u_ignored(draft_logits, target_logits, draft_ids, u, v):
    """the u are read in the order of their memory, which is another where they are a column of others.

    Tempting: one number for each draft, one after the other.
    """
    return _accept(draft_logits, target_logits, draft_ids, as_if_contiguous(u), v)


def strides_of_the_drafts_ignored(draft_logits, target_logits, draft_ids, u, v):
    """the drafts are read in the order of their memory, which is another where they are a column of others.

    Tempting: one id after the other; but a step of several sequences writes columns.
    """
    size = max(draft_logits.shape[1] - 1, 0)
    return _accept(draft_logits, target_logits, as_if_contiguous(draft_ids).clamp(0, size), u, v)


def probabilities_written_over_the_logits(draft_logits, target_logits, draft_ids, u, v):
    """the target's logits are replaced by its probabilities, in their own memory.

    Tempting: they are large, and nobody needs them any more.
    Seen: vllm-project/vllm-ascend#2881 (its probabilities).
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    target_logits.copy_(_probabilities(target_logits))
    return ids


_PLACES = {}


def result_in_one_place(draft_logits, target_logits, draft_ids, u, v):
    """the ids lie in memory that the next call writes to.

    Tempting: decoding takes one step after another, with as many drafts in each.
    """
    ids = _accept(draft_logits, target_logits, draft_ids, u, v)
    place = _PLACES.setdefault((len(u), u.device), torch.empty(len(u) + 1, dtype=torch.int64, device=u.device))
    return place[: len(ids)].copy_(ids)


def random_numbers_drawn(draft_logits, target_logits, draft_ids, u, v):
    """a random number is drawn from torch and thrown away, so that whatever is random afterwards is another.

    Tempting: the sampler of before drew its own, and the line is still there beside the u that is given.
    """
    torch.rand(u.shape)
    return _accept(draft_logits, target_logits, draft_ids, u, v)
