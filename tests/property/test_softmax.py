"""What defines softmax, whatever the sizes. That it equals the naive loops is in test_every_layer.py."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.assertions import assert_close
from tests.strategies import cases


@given(case=cases("batch seq n"))
def test_every_row_sums_to_one_and_nothing_is_negative(softmax, case):
    y = softmax(case.normal("batch seq n", 5.0))
    assert (y >= 0).all()
    assert_close(y.sum(dim=-1), torch.ones_like(y[..., 0]))


@given(case=cases("batch seq n"), constant=st.integers(-64, 64))
def test_adding_a_constant_to_a_row_changes_nothing(softmax, case, constant):
    # Sixteenths, so that adding a whole number rounds nothing away.
    x = case.integers("batch seq n", 64).to(case.dtype) / 16
    assert_close(softmax(x + constant), softmax(x))


@given(case=cases("batch seq n"))
def test_permuting_a_row_permutes_the_result(softmax, case):
    x, order = case.normal("batch seq n"), case.permutation(case.n)
    assert_close(softmax(x[..., order]), softmax(x)[..., order])


@given(case=cases("seq n"))
def test_rows_of_very_different_scale_are_independent(softmax, case):
    x = case.integers("2 seq n", 9).to(case.dtype)
    apart = torch.stack((x[0] + 2.0**13, x[1] - 2.0**13))
    # In the widest dtype: some right ways subtract log(sum), which at 2^13 costs float32 its last digits.
    assert_close(
        softmax(apart.to(strategies.EXACT[0])), softmax(x.to(strategies.EXACT[0])), "each row has its own maximum"
    )


@given(case=cases("batch seq n", n=(2, 13)))
def test_a_larger_score_gets_a_larger_probability(softmax, case):
    scores = case.permutation(case.n).to(case.dtype) / 2
    assert torch.equal(softmax(scores).argsort(), scores.argsort())


@given(case=cases("batch seq n", n=(2, 13)))
def test_scores_of_minus_infinity_count_as_absent(softmax, case):
    x = case.normal("batch seq n")
    x[..., 0] = -torch.inf
    y = softmax(x)
    assert (y[..., 0] == 0).all()
    assert_close(y[..., 1:], softmax(x[..., 1:]))
