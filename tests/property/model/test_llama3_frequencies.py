"""What defines Llama 3.1's frequencies. That they equal the naive loops is in every_layer/."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import target
from tests.cases.target import tensor
from tests.judge.assertions import assert_close

FACTORS = st.floats(2.0, 32.0)
LOWS = st.floats(0.5, 2.0)
WIDER = st.floats(1.5, 8.0)  # high / low
CONTEXTS = st.integers(64, 16384)


def _grid(low, high):
    """Frequencies evenly spaced, as many as show a jump."""
    return tensor([low + (high - low) * i / 200 for i in range(201)], target.EXACT[0])


@given(factor=FACTORS, low=LOWS, wider=WIDER, context=CONTEXTS)
def test_short_wavelengths_are_untouched_and_long_ones_divided_by_the_factor(
    llama3_frequencies, factor, low, wider, context
):
    per_turn = 2 * math.pi / context
    fast, slow = _grid(1.01 * wider * low * per_turn, 20 * wider * low * per_turn), _grid(1e-9, 0.99 * low * per_turn)
    assert_close(llama3_frequencies(fast, factor, low, wider * low, context) / fast, torch.ones_like(fast))
    ratio = llama3_frequencies(slow, factor, low, wider * low, context) / slow
    assert_close(ratio, torch.full_like(slow, 1 / factor))


@given(factor=FACTORS, low=LOWS, wider=WIDER, context=CONTEXTS)
def test_between_them_is_a_rising_bridge_without_a_jump(llama3_frequencies, factor, low, wider, context):
    per_turn = 2 * math.pi / context
    f = _grid(0.9 * low * per_turn, 1.1 * wider * low * per_turn)
    scaled = llama3_frequencies(f, factor, low, wider * low, context)
    rises = scaled.diff()
    assert (rises > 0).all()
    # s rises by one over the bridge, so no slope exceeds 1 + high / (high - low).
    steepest = (1 + wider / (wider - 1)) * f.diff().max()
    assert (rises <= steepest).all()


@given(factor=FACTORS, low=LOWS, wider=WIDER, context=CONTEXTS)
def test_every_parameter_matters_on_the_bridge(llama3_frequencies, factor, low, wider, context):
    middle = tensor([math.pi * (1 + wider) * low / context], target.EXACT[0])
    given_, *others = (
        llama3_frequencies(middle, *parameters)
        for parameters in (
            (factor, low, wider * low, context),
            (2 * factor, low, wider * low, context),
            (factor, 0.8 * low, wider * low, context),
            (factor, low, 1.2 * wider * low, context),
            (factor, low, wider * low, 1.2 * context),
        )
    )
    assert all((other != given_).all() for other in others)
