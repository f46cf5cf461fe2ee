"""What defines sampling, whatever the sizes. That it equals the naive loops is in every_layer/."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.case import cases
from tests.cases.target import tensor
from tests.judge.assertions import assert_identical, fail


def just_below_one(dtype):
    return torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)).item()


def counts_and_grid(case):
    """How often each token should come, some never, and an even grid of u, half a step away from every limit."""
    counts = case.integers("n", 7)
    counts[case.seed % case.n] += 1
    total = int(counts.sum())
    grid = (torch.arange(total, device=counts.device, dtype=case.dtype) + 0.5) / total
    return counts, grid


def repeated(logits, u):
    """The same logits for every u."""
    return logits.expand(*u.shape, -1)


def assert_possible(ids, logits):
    """Within the vocabulary, and of a probability above zero."""
    if not ((ids >= 0) & (ids < logits.shape[-1])).all():
        fail(f"an id of {ids.max().item()} is off the end", "a cumulative sum that ends below u")
    chosen = logits.gather(-1, ids[..., None])[..., 0]
    if (chosen == -math.inf).any():
        fail("a token of probability zero is drawn", "exceeds: > u, and not >= u; and the end of the cumulative sum")


@given(case=cases("n"))
def test_over_an_even_grid_of_u_each_token_comes_as_often_as_it_is_probable(sample, case):
    counts, grid = counts_and_grid(case)
    ids = sample(repeated(counts.to(case.dtype).log(), grid), grid)
    assert_identical(torch.bincount(ids, minlength=case.n), counts, "softmax, cumulative sum, the first that exceeds u")


@pytest.mark.exact
@given(case=cases("n"), shift=st.sampled_from([-100.0, 100.0]))
def test_adding_a_constant_to_the_logits_changes_no_draw(sample, case, shift):
    counts, grid = counts_and_grid(case)
    logits = repeated(counts.to(case.dtype).log(), grid)
    assert_identical(sample(logits + shift, grid), sample(logits, grid))


@given(case=cases("n count", count=(2, 20)))
def test_a_larger_u_never_draws_a_lower_id(sample, case):
    logits, u = case.normal("n", 2.0), case.uniform("count", 0, 0.99).sort().values
    ids = sample(repeated(logits, u), u)
    assert_identical(ids, ids.sort().values)


@given(case=cases("batch seq n"))
def test_rows_are_drawn_from_each_by_itself(sample, case):
    # In each row but one token is possible, whatever u.
    ids = case.integers("batch seq", case.n)
    logits = torch.full_like(case.normal("batch seq n"), -math.inf).scatter(-1, ids[..., None], 7.0)
    assert_identical(sample(logits, case.uniform("batch seq", 0, 0.99)), ids)


@pytest.mark.parametrize("end", ["u=0", "u just below 1"])
@given(case=cases("batch seq n"))
def test_a_token_of_probability_zero_is_never_drawn(sample, end, case):
    logits = case.normal("batch seq n", 3.0).masked_fill(case.booleans("batch seq n"), -math.inf)
    logits[..., case.seed % case.n] = 0.0
    u = torch.full_like(logits[..., 0], 0.0 if end == "u=0" else just_below_one(case.dtype))
    assert_possible(sample(logits, u), logits)


FLOAT32 = cases("batch", [torch.float32])


@given(case=FLOAT32, scale=st.sampled_from([0.0, 1.0, 5.0]), impossible=st.sampled_from([0, 1000]))
def test_of_32_000_tokens_in_float32_none_is_drawn_off_the_end(sample, case, scale, impossible):
    # A float32 sum of 32,000 probabilities may end below a u just below one.
    logits = case.normal("batch 32000", scale)
    logits[:, 32000 - impossible :] = -math.inf
    u = just_below_one(torch.float32)
    ids = sample(logits, tensor([u] * case.batch))
    assert_possible(ids, logits)
    # Each of 32,000 additions may be off by half a spacing, so that some token nearby is drawn, but none far away.
    before = logits.double().softmax(-1).cumsum(-1).gather(-1, ids[:, None]).cpu()
    if (before < u - 32_000 * 2.0**-24).any():
        fail("a token far from the end is drawn", "where no sum exceeds u: the last possible token")
