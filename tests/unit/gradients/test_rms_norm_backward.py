"""The gradient of RMSNorm: through the features themselves, and through their root mean square."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

ONES = [1.0, 1.0]


def test_three_and_four_where_only_the_first_result_counts(rms_norm_backward):
    # r = 1 / sqrt(12.5) = 0.282843, and mean(grad * x) = (3 + 0) / 2 = 1.5.
    # grad_x = r * (1 - 3 * r^2 * 1.5) = r * 0.64 = 0.181019 and r * (0 - 4 * r^2 * 1.5) = r * -0.48 = -0.135765.
    grad_x, grad_weight = rms_norm_backward(tensor([[1.0, 0.0]]), tensor([[3.0, 4.0]]), tensor(ONES), eps=0.0)
    look_at = "the term of the statistic: x is in the root mean square too"
    assert_close(grad_x, tensor([[0.181019, -0.135765]]), look_at)
    # The weight of the first feature is multiplied by 3 * r = 0.848528.
    assert_close(grad_weight, tensor([0.848528, 0.0]))


def test_a_longer_vector_has_a_smaller_gradient_and_none_along_itself(rms_norm_backward):
    # (1, 1) and (2, 2) come out alike, so along (1, 1) nothing changes; across it, (1, -1) counts in full.
    grad, x = tensor([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0]]), tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    grad_x, _ = rms_norm_backward(grad, x, tensor(ONES), eps=0.0)
    assert_close(grad_x, tensor([[0.0, 0.0], [1.0, -1.0], [0.5, -0.5]]))


def test_the_weight_scales_what_comes_back_before_the_mean_is_taken(rms_norm_backward):
    # r = 1, grad * weight = (2, 10), its mean along x = (2 + 10) / 2 = 6, so grad_x = (2 - 6, 10 - 6).
    grad_x, grad_weight = rms_norm_backward(tensor([[1.0, 1.0]]), tensor([[1.0, 1.0]]), tensor([2.0, 10.0]), eps=0.0)
    assert_close(grad_x, tensor([[-4.0, 4.0]]), "weight: it belongs to grad in both terms")
    assert_close(grad_weight, tensor(ONES), "the gradient of the weight is grad times the normalised x, without weight")


def test_the_gradient_of_the_weight_is_the_sum_over_all_tokens(rms_norm_backward):
    # Each token is (1, 1) or (-1, 1) times its length: normalised, the same signs.
    grad = tensor([[[1.0, 1.0], [2.0, 2.0]], [[4.0, 4.0], [8.0, 8.0]]])
    x = tensor([[[1.0, 1.0], [-5.0, 5.0]], [[3.0, 3.0], [-2.0, 2.0]]])
    _, grad_weight = rms_norm_backward(grad, x, tensor(ONES), eps=0.0)
    assert_close(grad_weight, tensor([1.0 - 2 + 4 - 8, 1.0 + 2 + 4 + 8]), "a sum over batch and sequence, no mean")


def test_eps_is_part_of_the_statistic_that_the_gradient_passes_through(rms_norm_backward):
    # mean(1, 1) + 3 = 4, so r = 0.5; mean(grad * x) = 0.5.
    # grad_x = 0.5 * (1 - 1 * 0.25 * 0.5) = 0.4375 and 0.5 * (0 - 1 * 0.25 * 0.5) = -0.0625.
    grad_x, grad_weight = rms_norm_backward(tensor([[1.0, 0.0]]), tensor([[1.0, 1.0]]), tensor(ONES), eps=3.0)
    assert_close(grad_x, tensor([[0.4375, -0.0625]]), "eps: inside the root, and in both terms")
    assert_close(grad_weight, tensor([0.5, 0.0]))


def test_eps_is_one_hundred_thousandth_unless_given(rms_norm_backward):
    # x = 0, so r = 1 / sqrt(1e-5) = 316.2278, and there is nothing along x.
    grad_x, _ = rms_norm_backward(tensor([[1.0, -2.0]]), tensor([[0.0, 0.0]]), tensor(ONES))
    assert_close(grad_x, tensor([[316.2278, -632.4555]]))


def test_each_token_has_its_own_gradient(rms_norm_backward):
    grad, x = tensor([[[1.0, -1.0], [0.0, 0.0]]]), tensor([[[1.0, 1.0], [7.0, -9.0]]])
    grad_x, _ = rms_norm_backward(grad, x, tensor(ONES), eps=0.0)
    assert_close(
        grad_x, tensor([[[1.0, -1.0], [0.0, 0.0]]]), "the axis of the mean: it is over d_model, never over seq"
    )


def test_a_thousand_squared_does_not_overflow_in_float16(rms_norm_backward):
    grad, x = tensor([[1000.0, -1000.0]], torch.float16), tensor([[1000.0, 1000.0]], torch.float16)
    grad_x, grad_weight = rms_norm_backward(grad, x, tensor(ONES, torch.float16))
    assert_close(grad_x, tensor([[1.0, -1.0]], torch.float16), "the dtype of the squares: float32")
    assert_close(grad_weight, tensor([1000.0, -1000.0], torch.float16))


def test_five_thousand_tokens_add_up_in_bfloat16(rms_norm_backward):
    # bfloat16 counts to 256 and no further.
    ones = torch.ones(5000, 1, dtype=torch.bfloat16, device=tensor(0.0).device)
    _, grad_weight = rms_norm_backward(ones, ones, ones[0], eps=0.0)
    assert_close(grad_weight, tensor([5000.0], torch.bfloat16), "sums over tokens: at least in float32")


def test_the_gradient_points_across_the_vector(rms_norm_backward, plot):
    # Around a circle: whatever grad is, what is left of it is at a right angle to x.
    turn = torch.linspace(0, 2 * torch.pi, 17)[:-1]
    x = tensor(torch.stack((2 * turn.cos(), 2 * turn.sin()), dim=-1).tolist())
    grad = tensor([[0.7, 0.4]]).expand(16, 2)
    grad_x, _ = rms_norm_backward(grad, x, tensor(ONES), eps=0.0)
    steps = {f"_{i}": torch.stack((x[i], x[i] - grad_x[i])).T for i in range(16)}
    labels = {"xlabel": "feature 0", "ylabel": "feature 1", "aspect": "equal"}
    title = "where a step against the gradient leads from each x"
    plot(None, {"x": x.T} | steps, "o-", title=title, **labels)
    assert_close((grad_x * x).sum(dim=-1), torch.zeros(16), "the term of the statistic")


@pytest.mark.refusal
def test_a_weight_of_another_size_is_refused_with_both_sizes(rms_norm_backward):
    with pytest.raises(ValueError, match=r"rms_norm_backward: weight must be \[d_model\] with d_model=6, got \[5\]"):
        rms_norm_backward(torch.ones(2, 6), torch.ones(2, 6), torch.ones(5))


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(rms_norm_backward):
    with pytest.raises(
        ValueError, match=r"rms_norm_backward: x must be \[... d_model\] with ...=\(3,\) d_model=6, got \[2, 6\]"
    ):
        rms_norm_backward(torch.ones(3, 6), torch.ones(2, 6), torch.ones(6))


@pytest.mark.refusal
def test_a_negative_eps_is_refused(rms_norm_backward):
    with pytest.raises(ValueError, match="rms_norm_backward: eps must not be negative, got -1"):
        rms_norm_backward(torch.ones(2, 6), torch.ones(2, 6), torch.ones(6), -1.0)


@pytest.mark.refusal
def test_rows_without_a_feature_are_refused(rms_norm_backward):
    with pytest.raises(ValueError, match=r"rms_norm_backward: d_model must be at least 1, got shape \[2, 0\]"):
        rms_norm_backward(torch.ones(2, 0), torch.ones(2, 0), torch.ones(0))
