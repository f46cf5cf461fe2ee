"""RMSNorm: divide each token's vector by its root mean square, then scale each feature."""

import warnings

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close, assert_like


def test_three_and_four_have_the_root_mean_square_of_12_5(rms_norm):
    # mean(9, 16) = 12.5, and 3 / sqrt(12.5) = 0.848528, 4 / sqrt(12.5) = 1.131371.
    assert_close(rms_norm(tensor([[3.0, 4.0]]), tensor([1.0, 1.0]), eps=0.0), tensor([[0.848528, 1.131371]]))


def test_each_feature_is_scaled_by_its_own_weight(rms_norm):
    assert_close(rms_norm(tensor([[1.0, -1.0]]), tensor([10.0, 0.5]), eps=0.0), tensor([[10.0, -0.5]]))


def test_each_token_is_normalised_by_itself(rms_norm):
    x = tensor([[[2.0, 2.0], [-5.0, 5.0], [1000.0, 1000.0]]])
    expected = tensor([[[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]]])
    assert_close(
        rms_norm(x, tensor([1.0, 1.0]), eps=0.0), expected, "the axis of the mean: it is over d_model, never over seq"
    )


def test_the_mean_is_not_subtracted(rms_norm):
    # LayerNorm would answer 0, 0.
    assert_close(rms_norm(tensor([[7.0, 7.0]]), tensor([1.0, 1.0]), eps=0.0), tensor([[1.0, 1.0]]))


def test_eps_is_added_to_the_mean_square_inside_the_root(rms_norm):
    # 1 / sqrt(1 + 3) = 0.5; outside the root it would be 1 / (1 + 3) or 1 / (1 + sqrt(3)).
    assert_close(rms_norm(tensor([[1.0, 1.0]]), tensor([1.0, 1.0]), eps=3.0), tensor([[0.5, 0.5]]))


def test_eps_is_one_hundred_thousandth_unless_given(rms_norm):
    # mean square 1e-5, so 0.00316228 / sqrt(1e-5 + 1e-5) = 0.707107.
    assert_close(rms_norm(tensor([[10**-2.5]]), tensor([1.0])), tensor([[0.707107]]))


def test_zeros_stay_zeros(rms_norm):
    assert_close(rms_norm(tensor([[0.0, 0.0]]), tensor([1.0, 1.0])), tensor([[0.0, 0.0]]))


def test_a_thousand_squared_does_not_overflow_in_float16(rms_norm):
    x = tensor([[1000.0, -1000.0]], torch.float16)
    assert_close(rms_norm(x, tensor([1.0, 1.0], torch.float16)), tensor([[1.0, -1.0]], torch.float16))


def test_vectors_of_any_length_come_out_with_the_same(rms_norm, plot):
    # A spiral, whose vectors are a tenth to four times as long as those of the circle that it is drawn onto.
    turn, length = torch.linspace(0, 4 * torch.pi, 49), 2 ** torch.linspace(-3, 2, 49)
    x = tensor(torch.stack((length * turn.cos(), length * turn.sin()), dim=-1).tolist())
    y = rms_norm(x, tensor([1.0, 1.0]), eps=0.0)
    moves = {f"_{i}": torch.stack((x[i], y[i])).T for i in range(0, 49, 4)}
    labels = {"xlabel": "feature 0", "ylabel": "feature 1", "aspect": "equal"}
    plot(None, moves | {"before": x.T, "after": y.T}, "o-", title="d_model = 2: a spiral becomes a circle", **labels)
    before, after = (t.square().mean(dim=-1).sqrt() for t in (x, y))
    plot(range(49), {"before": before, "after": after}, xlabel="token", ylabel="root mean square", yscale="log")
    assert_close(after, torch.ones_like(before))
    assert_close(y * before[:, None], x, "the direction: one factor for all features of a token")


def test_a_small_float16_vector_does_not_vanish_in_its_square(rms_norm):
    # 1e-4 squared is 1e-8, which float16 does not have.
    y = rms_norm(tensor([[1e-4, -1e-4]], torch.float16), tensor([1.0, 1.0], torch.float16), eps=0.0)
    assert_close(y, tensor([[1.0, -1.0]], torch.float16), "the dtype of the square")


def test_a_float32_weight_leaves_a_bfloat16_x_bfloat16(rms_norm):
    x = tensor([[3.0, 4.0]], torch.bfloat16)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that it will be slow
            y = rms_norm(x, tensor([1.0, 1.0]))
    except (TypeError, ValueError, RuntimeError):
        return  # to ask for one dtype is right too
    assert_like(y, x, "the dtype of the weight is not that of the result")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_eps_below_what_half_precision_holds_still_keeps_zeros_zero(rms_norm, dtype):
    # In float16 1e-8 is 0, and 0 / sqrt(0 + 0) is no number.
    x = torch.zeros(1, 2, dtype=dtype, device=tensor(0.0).device)
    assert_close(rms_norm(x, torch.ones_like(x[0]), 1e-8), x, "eps in float32")


@pytest.mark.refusal
def test_a_weight_of_another_size_is_refused_with_both_sizes(rms_norm):
    with pytest.raises(ValueError, match=r"rms_norm: weight must be \[d_model\] with d_model=6, got \[5\]"):
        rms_norm(torch.ones(2, 6), torch.ones(5))


@pytest.mark.refusal
def test_a_negative_eps_is_refused(rms_norm):
    with pytest.raises(ValueError, match="rms_norm: eps must not be negative, got -1"):
        rms_norm(torch.ones(2, 6), torch.ones(6), -1.0)


@pytest.mark.refusal
def test_integers_are_refused(rms_norm):
    with pytest.raises(ValueError, match="rms_norm: x must be float, got int64"):
        rms_norm(torch.ones(2, 6, dtype=torch.int64), torch.ones(6))


@pytest.mark.refusal
def test_rows_without_a_feature_are_refused(rms_norm):
    with pytest.raises(ValueError, match=r"rms_norm: d_model must be at least 1, got shape \[2, 0\]"):
        rms_norm(torch.ones(2, 0), torch.ones(0))
