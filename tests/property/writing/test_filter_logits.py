"""What defines the filters, whatever the sizes. That they equal the naive loops is in every_layer/.

Each row of `ladders` has the logits 0, 1/4, 2/4, ... in another order, exact in every dtype. So all rows have
the same probabilities, known in advance, and limits can be put half way between two of them.
"""

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.case import cases
from tests.judge.assertions import assert_close, fail

CASES = cases("batch seq n", target.ALL)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0])
KEPT = st.integers(1, 13)


def ladders(case):
    return case.uniform("batch seq n").argsort(dim=-1).to(case.dtype) / 4


def largest(kept, logits, temperature=1.0):
    """The `kept` largest of each row of ladders, over the temperature; -inf elsewhere."""
    rank = logits.shape[-1] - 1 - 4 * logits
    return (logits / temperature).masked_fill(rank >= kept, -math.inf)


def top_p_for(kept, among, temperature=1.0):
    """A limit that is reached half way through the last of `kept` tokens, of the `among` most likely ones."""
    powers = [math.exp(-rank / 4 / temperature) for rank in range(among)]
    return (sum(powers[:kept]) - powers[kept - 1] / 2) / sum(powers)


def min_p_for(kept, temperature=1.0):
    """A limit half way between the ranks of the last token that is kept and the next."""
    return math.exp(-(kept - 0.5) / 4 / temperature)


@given(case=CASES, temperature=TEMPERATURES)
def test_the_temperature_drops_nothing(filter_logits, case, temperature):
    logits = case.normal("batch seq n", 3.0)
    assert_close(filter_logits(logits, temperature), logits / temperature)


@given(case=CASES, k=st.integers(1, 15))
def test_top_k_keeps_k_tokens_where_there_are_no_ties(filter_logits, case, k):
    logits = ladders(case)
    assert_close(filter_logits(logits, top_k=k), largest(k, logits))


@given(case=CASES, k=st.integers(1, 15))
def test_top_k_keeps_all_that_reach_the_kth_largest(filter_logits, case, k):
    logits = case.integers("batch seq n", 4).to(case.dtype)
    above = (logits[..., None, :] > logits[..., :, None]).sum(dim=-1)  # how many are larger
    assert_close(filter_logits(logits, top_k=k), logits.masked_fill(above >= k, -math.inf), "ties with the k-th")


@given(case=CASES, kept=KEPT)
def test_top_p_keeps_as_few_as_reach_p(filter_logits, case, kept):
    logits, kept = ladders(case), min(kept, case.n)
    out = filter_logits(logits, top_p=top_p_for(kept, case.n))
    assert_close(out, largest(kept, logits), "the token that crosses p: it stays, the next one goes")


@given(case=CASES, kept=KEPT)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(filter_logits, case, kept):
    logits = ladders(case)
    assert_close(filter_logits(logits, min_p=min_p_for(kept)), largest(kept, logits), "relative to the largest")


@given(case=CASES, temperature=TEMPERATURES, k=KEPT, by_p=KEPT, by_min_p=KEPT)
def test_each_filter_works_on_what_the_one_before_has_left(filter_logits, case, temperature, k, by_p, by_min_p):
    logits, among = ladders(case), min(k, case.n)
    by_p = min(by_p, among)
    out = filter_logits(logits, temperature, k, top_p_for(by_p, among, temperature), min_p_for(by_min_p, temperature))
    assert_close(out, largest(min(by_p, by_min_p), logits, temperature), "temperature, top_k, top_p, min_p")


@given(case=CASES, k=KEPT, top_p=st.sampled_from([0.1, 1.0]), min_p=st.sampled_from([0.0, 1.0]))
def test_temperature_zero_keeps_the_first_of_the_largest_whatever_else_is_asked(filter_logits, case, k, top_p, min_p):
    logits = case.integers("batch seq n", 4).to(case.dtype)
    is_largest = logits == logits.amax(dim=-1, keepdim=True)
    first = is_largest & (is_largest.cumsum(dim=-1) == 1)
    assert_close(filter_logits(logits, 0.0, k, top_p, min_p), logits.masked_fill(~first, -math.inf), "greedy")


@given(case=CASES, top_p=st.sampled_from([1e-9, 0.01, 0.37, 1.0]), min_p=st.floats(0, 1), k=KEPT)
def test_the_likeliest_token_always_stays(filter_logits, case, top_p, min_p, k):
    logits = case.normal("batch seq n", 3.0)
    out = filter_logits(logits, 1.0, k, top_p, min_p)
    if (out.amax(dim=-1) != logits.amax(dim=-1)).any():
        fail("the likeliest token is dropped or changed")


@given(case=CASES, k=KEPT, by_p=KEPT, by_min_p=KEPT)
def test_permuting_the_vocabulary_permutes_the_result(filter_logits, case, k, by_p, by_min_p):
    logits, order = ladders(case), case.permutation(case.n)
    limits = 0.5, k, top_p_for(min(by_p, k, case.n), min(k, case.n), 0.5), min_p_for(by_min_p, 0.5)
    assert_close(filter_logits(logits[..., order], *limits), filter_logits(logits, *limits)[..., order])


@given(case=CASES, kept=KEPT, shift=st.sampled_from([-16.0, 8.0]))
def test_a_constant_added_to_a_row_changes_nothing_that_is_kept(filter_logits, case, kept, shift):
    logits, limits = ladders(case), {"top_p": top_p_for(min(kept, case.n), case.n), "min_p": min_p_for(kept)}
    assert_close(filter_logits(logits + shift, **limits) - shift, filter_logits(logits, **limits))
