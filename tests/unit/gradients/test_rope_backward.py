"""The gradient of RoPE: each pair is turned back by the angle that it was turned by."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

QUARTER = math.pi / 2


def _grad(*features):
    return tensor([[[list(features)]]])


def test_a_quarter_turn_is_clockwise_on_the_way_back(rope_backward):
    # (1, 0) points east and is turned to (0, -1), south.
    grad_x = rope_backward(_grad(1.0, 0.0), tensor([1]), tensor([QUARTER]))
    assert_close(grad_x, _grad(0.0, -1.0), "the sign of the sine: (0, 1) is what rope itself makes of it")


def test_what_was_turned_is_where_it_was(rope_backward):
    # cos 0.6, sin 0.8: rope turns (3, 4) to (3 * 0.6 - 4 * 0.8, 3 * 0.8 + 4 * 0.6) = (-1.4, 4.8).
    grad_x = rope_backward(_grad(-1.4, 4.8), tensor([1]), tensor([math.acos(0.6)]))
    assert_close(grad_x, _grad(3.0, 4.0), "both features of a pair: each of them went into both results")


def test_the_pairs_are_i_and_i_plus_half_of_head_dim(rope_backward):
    # Features 0 and 2 are a pair that turns by a quarter; 1 and 3 are a pair that stands still.
    grad_x = rope_backward(_grad(1.0, 2.0, 3.0, 4.0), tensor([1]), tensor([QUARTER, 0.0]))
    assert_close(grad_x, _grad(3.0, 2.0, -1.0, 4.0), "the pairs: not the neighbours (0, 1) and (2, 3)")


def test_the_angle_is_position_times_frequency(rope_backward):
    # 2 · π/6 = 60 degrees: cos 1/2, sin √3/2.
    grad_x = rope_backward(_grad(2.0, 0.0), tensor([2]), tensor([math.pi / 6]))
    assert_close(grad_x, _grad(1.0, -math.sqrt(3)))


def test_position_zero_is_left_as_it_is(rope_backward):
    grad = _grad(1.0, 2.0, 3.0, 4.0)
    assert_close(rope_backward(grad, tensor([0]), tensor([1.0, 0.1])), _grad(1.0, 2.0, 3.0, 4.0))


def test_each_position_of_the_sequence_has_its_own_angle(rope_backward):
    grad = tensor([[[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]])
    grad_x = rope_backward(grad, tensor([2, 0, 1]), tensor([QUARTER]))
    assert_close(grad_x, tensor([[[[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0]]]]), "positions are given, not counted")


def test_positions_may_differ_from_one_sequence_of_the_batch_to_the_next(rope_backward):
    grad_x = rope_backward(tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]]), tensor([[1], [2]]), tensor([QUARTER]))
    assert_close(grad_x, tensor([[[[0.0, -1.0]]], [[[-1.0, 0.0]]]]))


def test_as_many_positions_as_sequences_are_still_those_of_the_sequence(rope_backward):
    # Two sequences of two tokens: [2] is [seq], never one position for each sequence.
    grad = tensor([[[[1.0, 0.0], [1.0, 0.0]]]] * 2)
    grad_x = rope_backward(grad, tensor([0, 1]), tensor([QUARTER]))
    assert_close(grad_x, tensor([[[[1.0, 0.0], [0.0, -1.0]]]] * 2), "positions of one axis are [seq]")


def test_a_negative_position_was_turned_the_other_way(rope_backward):
    # It is turned back anticlockwise, to (0, 1), north.
    grad_x = rope_backward(_grad(1.0, 0.0), tensor([-1]), tensor([QUARTER]))
    assert_close(grad_x, _grad(0.0, 1.0), "positions may be negative")


def test_position_1001_in_bfloat16_is_not_rounded_to_1000(rope_backward):
    # bfloat16 counts in steps of 4 there; a quarter turn per position makes 1001 the same as 1.
    grad = tensor([[[[1.0, 0.0]]]], torch.bfloat16)
    grad_x = rope_backward(grad, tensor([1001]), tensor([QUARTER], torch.float32))
    assert_close(grad_x, tensor([[[[0.0, -1.0]]]], torch.bfloat16), "the angle: at least float32, whatever grad is")


def test_positions_that_have_moved_on_in_place_are_the_new_ones(rope_backward):
    grad, positions, frequencies = _grad(1.0, 0.0), tensor([0]), tensor([QUARTER])
    rope_backward(grad, positions, frequencies)
    positions += 1
    grad_x = rope_backward(grad, positions, frequencies)
    assert_close(grad_x, _grad(0.0, -1.0), "a table kept by the identity of its tensors")


def test_a_wish_for_more_of_one_feature_is_seen_from_where_x_was(rope_backward, plot):
    # At all positions y should go north, (0, 1). Seen from x, before the turn, north lies elsewhere at each.
    at, frequencies = list(range(12)), tensor([0.5, 0.1])
    north = tensor([[[[0.0, 0.0, 1.0, 1.0]] * 12]])
    east, up = rope_backward(north, tensor(at), frequencies)[0, 0].T.reshape(2, 2, 12)
    circle = torch.linspace(0, 2 * math.pi, 90)
    around = {"_circle": torch.stack((circle.cos(), circle.sin()))}
    labels = {"aspect": "equal", "xlabel": "feature i", "ylabel": "feature i + half"}
    for i in range(2):
        plot(east[i], around | {f"grad_x of pair {i}, positions 0 to 11": up[i]}, "o-", **labels)
    angles = tensor(at)[:, None] * frequencies
    assert_close(torch.stack((east, up)), torch.stack((angles.sin().T, angles.cos().T)))


@pytest.mark.refusal
def test_an_odd_head_dim_is_refused(rope_backward):
    with pytest.raises(ValueError, match="rope_backward: head_dim must be even, got 7"):
        rope_backward(torch.ones(1, 1, 1, 7), torch.tensor([0]), torch.ones(3))


@pytest.mark.refusal
def test_frequencies_for_another_head_dim_are_refused(rope_backward):
    sentence = r"rope_backward: frequencies must be \[head_dim//2\] with head_dim//2=4, got \[8\]"
    with pytest.raises(ValueError, match=sentence):
        rope_backward(torch.ones(1, 1, 1, 8), torch.tensor([0]), torch.ones(8))


@pytest.mark.refusal
def test_positions_that_are_not_integers_are_refused(rope_backward):
    with pytest.raises(ValueError, match="rope_backward: positions must be int64, got float"):
        rope_backward(torch.ones(1, 1, 1, 8), torch.tensor([0.0]), torch.ones(4))
