"""RoPE: turn each pair of features by an angle that grows with the position."""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

QUARTER = math.pi / 2


def _x(*features):
    return tensor([[[list(features)]]])


def test_a_quarter_turn_is_anticlockwise(rope):
    # (1, 0) points east and is turned to (0, 1), north.
    y = rope(_x(1.0, 0.0), tensor([1]), tensor([QUARTER]))
    assert_close(y, _x(0.0, 1.0), "the sign of the sine: clockwise would give (0, -1)")


def test_the_pairs_are_i_and_i_plus_half_of_head_dim(rope):
    # Features 0 and 2 are a pair that turns by a quarter; 1 and 3 are a pair that stands still.
    y = rope(_x(1.0, 2.0, 3.0, 4.0), tensor([1]), tensor([QUARTER, 0.0]))
    assert_close(y, _x(-3.0, 2.0, 1.0, 4.0), "the pairs: not the neighbours (0, 1) and (2, 3)")


def test_the_angle_is_position_times_frequency(rope):
    # 2 · π/6 = 60 degrees: cos 1/2, sin √3/2.
    y = rope(_x(2.0, 0.0), tensor([2]), tensor([math.pi / 6]))
    assert_close(y, _x(1.0, math.sqrt(3)))


def test_position_zero_is_left_as_it_is(rope):
    assert_close(rope(_x(1.0, 2.0, 3.0, 4.0), tensor([0]), tensor([1.0, 0.1])), _x(1.0, 2.0, 3.0, 4.0))


def test_each_position_of_the_sequence_has_its_own_angle(rope):
    x = tensor([[[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]])
    y = rope(x, tensor([2, 0, 1]), tensor([QUARTER]))
    assert_close(y, tensor([[[[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]]), "positions are given, not counted")


def test_positions_may_differ_from_one_sequence_of_the_batch_to_the_next(rope):
    x = tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    y = rope(x, tensor([[1], [2]]), tensor([QUARTER]))
    assert_close(y, tensor([[[[0.0, 1.0]]], [[[-1.0, 0.0]]]]))


def test_position_1001_in_bfloat16_is_not_rounded_to_1000(rope):
    # bfloat16 counts in steps of 4 there; a quarter turn per position makes 1001 the same as 1.
    y = rope(tensor([[[[1.0, 0.0]]]], torch.bfloat16), tensor([1001]), tensor([QUARTER], torch.float32))
    assert_close(y, tensor([[[[0.0, 1.0]]]], torch.bfloat16), "the angle: at least float32, whatever x is")


def test_positions_that_have_moved_on_in_place_are_the_new_ones(rope):
    # As a decoding loop does with `positions += 1`.
    x, positions, frequencies = _x(1.0, 0.0), tensor([0]), tensor([QUARTER])
    rope(x, positions, frequencies)
    positions += 1
    assert_close(rope(x, positions, frequencies), _x(0.0, 1.0), "a table kept by the identity of its tensors")


def test_pairs_turn_on_circles_the_later_ones_more_slowly(rope, plot, imshow):
    at, frequencies = torch.arange(12), tensor([0.5, 0.1])
    x = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 12, 4)
    first, second = rope(tensor(x.tolist()), tensor(at.tolist()), frequencies)[0, 0].T.reshape(2, 2, 12)
    angles = tensor(at.tolist())[:, None] * frequencies
    imshow(angles, title="angle in radians", xlabel="pair", ylabel="position")
    circle = torch.linspace(0, 2 * math.pi, 90)
    around = {"_circle": torch.stack((circle.cos(), circle.sin()))}
    labels = {"aspect": "equal", "xlabel": "feature i", "ylabel": "feature i + half"}
    for i in range(2):
        plot(first[i], around | {f"pair {i}, positions 0 to 11": second[i]}, "o-", **labels)
    assert_close(torch.stack((first, second)), torch.stack((angles.cos().T, angles.sin().T)))


def test_equal_vectors_match_by_their_distance_alone_and_best_at_distance_zero(rope, plot, imshow):
    frequencies = 10_000.0 ** -(torch.arange(16, dtype=torch.float64) / 16)
    turned = rope(tensor([[[[0.25] * 32] * 48]]), tensor(list(range(48))), tensor(frequencies.tolist()))[0, 0]
    scores = turned @ turned.T
    labels = {"xlabel": "position of the key", "ylabel": "position of the query"}
    imshow(scores, title="dot products of one vector, turned", **labels)
    by_distance = (torch.arange(48)[:, None] * frequencies).cos().sum(dim=-1) / 8
    plot(
        range(48),
        {"dot product": scores[-1].flip(0)},
        "o-",
        xlabel="distance",
        title="the same by distance",
        ylim=(0, 2.1),
    )
    distance = (torch.arange(48)[:, None] - torch.arange(48)).abs()
    assert_close(scores, tensor(by_distance[distance].tolist()), "the distance alone counts, not the place")
    assert (scores[0, 1:] < scores[0, 0]).all()


def test_a_negative_position_turns_the_other_way(rope):
    # (1, 0) points east and is turned to (0, -1), south.
    assert_close(rope(_x(1.0, 0.0), tensor([-1]), tensor([QUARTER])), _x(0.0, -1.0), "positions may be negative")


@pytest.mark.refusal
def test_an_odd_head_dim_is_refused(rope):
    with pytest.raises(ValueError, match="rope: head_dim must be even, got 7"):
        rope(torch.ones(1, 1, 1, 7), torch.tensor([0]), torch.ones(3))


@pytest.mark.refusal
def test_frequencies_for_another_head_dim_are_refused(rope):
    sentence = r"rope: frequencies must be \[head_dim//2\] with head_dim//2=4, got \[8\]"
    with pytest.raises(ValueError, match=sentence):
        rope(torch.ones(1, 1, 1, 8), torch.tensor([0]), torch.ones(8))


@pytest.mark.refusal
def test_positions_that_are_not_integers_are_refused(rope):
    with pytest.raises(ValueError, match="rope: positions must be int64, got float"):
        rope(torch.ones(1, 1, 1, 8), torch.tensor([0.0]), torch.ones(4))


def test_as_many_positions_as_sequences_are_still_those_of_the_sequence(rope):
    # Two sequences of two tokens: [2] is [seq], never one position for each sequence.
    x = tensor([[[[1.0, 0.0], [1.0, 0.0]]]] * 2)
    y = rope(x, tensor([0, 1]), tensor([QUARTER]))
    assert_close(y, tensor([[[[1.0, 0.0], [0.0, 1.0]]]] * 2), "positions of one axis are [seq], whatever batch is")


def test_positions_in_another_order_between_the_same_ends_are_other_positions(rope):
    x, frequencies = tensor([[[[1.0, 0.0]] * 4]]), tensor([QUARTER])
    rope(x, tensor([0, 1, 2, 3]), frequencies)
    y = rope(x, tensor([0, 2, 1, 3]), frequencies)
    assert_close(y, tensor([[[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]]]), "a table kept by its ends")
