"""Sizes of any magnitude: at and around the blocks in which kernels work, two large axes at once, and very many.

Kernels go wrong at an exact multiple of their block, where the last block is left out, where two axes are long at once,
and where a sum is so long that half precision cannot hold it. The loops would take minutes here, so the layers are
compared with `vectorized` in float64, which the small sizes prove.
"""

import pytest
import torch

from tests.cases.calls import FLAGS, arguments, calls_of
from tests.cases.case import Case
from tests.cases.sizes import around_blocks, very_large
from tests.judge.assertions import assert_equals_formula
from tests.judge.gradients import assert_gradients_equal_the_formula, cancelling, downstream
from tests.judge.subject import word

SUMS = "sums over an axis, over tokens too: at least in float32"
SINGLE, HALVES = torch.float32, (torch.bfloat16, torch.float16)


def _id(of):
    return word(of) if isinstance(of, torch.dtype) else "of one sign" if of is downstream else "that cancel"


@pytest.mark.tensors
def test_exact_multiples_of_blocks_and_their_neighbours_are_right_along_each_axis_and_along_two(layer):
    for seed, sizes in enumerate(around_blocks(layer.layer)):
        args, kwargs = arguments(layer.layer, Case(sizes, SINGLE, seed))
        assert_equals_formula(layer, *args, look_at="blocks: one that is full, the last one, one too many", **kwargs)


@pytest.mark.tensors
def test_gradients_are_right_at_and_around_blocks(differentiable_layer):
    name = differentiable_layer.layer
    for seed, sizes in enumerate(around_blocks(name)):
        call = arguments(name, Case(sizes, SINGLE, seed))
        look_at = "blocks of the backward pass: one that is full, the last one, one too many"
        assert_gradients_equal_the_formula(differentiable_layer, call, look_at=look_at)


@pytest.mark.tensors
def test_every_flag_holds_where_the_sizes_are_multiples_of_blocks(layer):
    for size in (32, 64, 128):
        axes = calls_of(layer.layer).sizes.split()
        sizes = {axis: size if axis in ("q_len", "seq", "n", "vocab") else 2 for axis in axes} | (
            {"more": 0} if "more" in axes else {}
        )
        for seed in range(FLAGS):
            args, kwargs = arguments(layer.layer, Case(dict(sizes), SINGLE, seed))
            assert_equals_formula(layer, *args, look_at="a path of its own for full blocks", **kwargs)


@pytest.mark.tensors
def test_very_large_sizes_are_right(layer):
    for seed, sizes in enumerate(very_large(layer.layer)):
        # Sums over tokens of a gradient are of one sign: of 70,000 that cancel, hardly more than roundings are left.
        made = _grown if calls_of(layer.layer).forward else _case
        args, kwargs = arguments(layer.layer, made(layer.layer, sizes, SINGLE, seed))
        assert_equals_formula(layer, *args, look_at="counters, grids and blocks", long_sums=True, **kwargs)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", HALVES, ids=word)
def test_long_sums_of_one_sign_are_right_in_half_precision(layer, dtype):
    for seed, sizes in enumerate(very_large(layer.layer)):
        args, kwargs = arguments(layer.layer, _grown(layer.layer, sizes, dtype, seed))
        assert_equals_formula(layer, *args, look_at=SUMS, long_sums=True, **kwargs)


@pytest.mark.tensors
@pytest.mark.parametrize(("dtype", "towards"), [(SINGLE, downstream), (torch.bfloat16, cancelling)], ids=_id)
def test_gradients_that_are_long_sums_are_right(differentiable_layer, dtype, towards):
    name = differentiable_layer.layer
    for seed, sizes in enumerate(very_large(name)):
        call = arguments(name, _grown(name, sizes, dtype, seed))
        assert_gradients_equal_the_formula(differentiable_layer, call, towards, look_at=SUMS)


def _case(layer, sizes, dtype, seed):
    return Case(dict(sizes), dtype, seed)


def _grown(layer, sizes, dtype, seed):
    """All of one sign, so that sums grow; not in layers of layers, where scores would grow until one key has all."""
    return Case(dict(sizes), dtype, seed, positive=not calls_of(layer).rounds_within)
