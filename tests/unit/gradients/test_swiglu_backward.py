"""The gradient of SwiGLU: back through the down-projection, then by two ways, through the gate and through up.

A gate of 20 is open: silu(20) = 20 to eight digits, and its slope is 1. A gate of -40 is shut: value and slope are 0.
"""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_where_the_gate_is_open_it_is_the_gradient_of_a_product(swiglu_backward):
    # y = w_down * (w_gate * x) * (w_up * x) = 2 * 20x * 3x. What is 1 more in each of the four changes y at this rate:
    grads = swiglu_backward(tensor([1.0]), tensor([1.0]), tensor([[20.0]]), tensor([[3.0]]), tensor([[2.0]]))
    grad_x, grad_gate, grad_up, grad_down = grads
    assert_close(grad_down, tensor([[60.0]]), "grad times the hidden value, 20 * 3")
    assert_close(grad_up, tensor([[40.0]]), "2 comes back to the hidden value, times the activated gate, 20")
    assert_close(grad_gate, tensor([[6.0]]), "2 comes back to the hidden value, times up, 3")
    assert_close(grad_x, tensor([240.0]), "x reaches y through gate and through up: 20 * 6 + 3 * 40")


def test_the_slope_of_the_gate_is_that_of_silu(swiglu_backward):
    # sigmoid(ln 3) = 3/4: silu(ln 3) = 0.823959, and its slope is 3/4 + 0.823959/4 = 0.955990. 4 comes back to hidden.
    ln = math.log(3)
    grads = swiglu_backward(tensor([4.0]), tensor([1.0]), tensor([[ln]]), tensor([[2.0]]), tensor([[1.0]]))
    grad_x, grad_gate, grad_up, grad_down = grads
    assert_close(grad_gate, tensor([[7.647918]]), "4 * 2 times the slope of silu")
    assert_close(grad_up, tensor([[3.295837]]), "4 times the activated gate")
    assert_close(grad_down, tensor([[6.591674]]), "4 times the activated gate times up")
    assert_close(grad_x, tensor([14.993770]), "1.098612 * 7.647918 + 2 * 3.295837")


def test_through_a_shut_gate_nothing_comes_back(swiglu_backward):
    grads = swiglu_backward(tensor([1.0]), tensor([1.0]), tensor([[-40.0]]), tensor([[3.0]]), tensor([[2.0]]))
    for gradient in grads:
        assert_close(gradient, torch.zeros_like(gradient), "which of gate and up is activated")


def test_a_gate_of_zero_lets_half_of_it_back_to_itself_alone(swiglu_backward):
    # silu(0) = 0 with slope 1/2: 2 * 3 / 2 for the gate, and 0 for all that is multiplied by silu(0).
    grads = swiglu_backward(tensor([1.0]), tensor([1.0]), tensor([[0.0]]), tensor([[3.0]]), tensor([[2.0]]))
    grad_x, grad_gate, grad_up, grad_down = grads
    assert_close(grad_gate, tensor([[3.0]]))
    assert_close(grad_up, tensor([[0.0]]), "the gradients of gate and up: which is which")
    assert_close(grad_down, tensor([[0.0]]))
    assert_close(grad_x, tensor([0.0]))


def test_square_weights_are_out_by_in_and_so_are_their_gradients(swiglu_backward):
    # Gates 20 and 30, up 10 and 20, hidden 200 and 600. Back through w_down come 1 and 1 + 2 = 3.
    grad, x = tensor([1.0, 2.0]), tensor([1.0, 10.0])
    w_gate, w_up = tensor([[20.0, 0.0], [30.0, 0.0]]), tensor([[0.0, 1.0], [0.0, 2.0]])
    grad_x, grad_gate, grad_up, grad_down = swiglu_backward(grad, x, w_gate, w_up, tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert_close(grad_down, tensor([[200.0, 600.0], [400.0, 1200.0]]), "a row for each feature of y, as w_down has")
    assert_close(grad_up, tensor([[20.0, 200.0], [90.0, 900.0]]), "1 * 20 and 3 * 30, each times x")
    assert_close(grad_gate, tensor([[10.0, 100.0], [60.0, 600.0]]), "1 * 10 and 3 * 20, each times x")
    assert_close(grad_x, tensor([2000.0, 200.0]), "20 * 10 + 30 * 60 through gate, 1 * 20 + 2 * 90 through up")


def test_the_gradients_of_weights_are_sums_over_all_tokens_of_all_sequences(swiglu_backward):
    # y = 60x², but 0 for the last token, whose gate is -20. The slopes are 3x², 20x², 60x² and 120x.
    grad, x = tensor([[[1.0], [10.0]], [[100.0], [1000.0]]]), tensor([[[1.0], [2.0]], [[3.0], [-1.0]]])
    grads = swiglu_backward(grad, x, tensor([[20.0]]), tensor([[3.0]]), tensor([[1.0]]))
    grad_x, grad_gate, grad_up, grad_down = grads
    assert_close(grad_x, tensor([[[120.0], [2400.0]], [[36000.0], [0.0]]]), "each token has a gradient of its own")
    assert_close(grad_gate, tensor([[3.0 + 120 + 2700]]), "a sum over batch and sequence, no mean")
    assert_close(grad_up, tensor([[20.0 + 800 + 18000]]), "a sum over batch and sequence, no mean")
    assert_close(grad_down, tensor([[60.0 + 2400 + 54000]]), "a sum over batch and sequence, no mean")


def test_gates_of_ten_thousand_and_of_minus_ten_thousand_are_open_and_shut(swiglu_backward):
    # Written as e^g / (1 + e^g), the sigmoid of the first would be inf / inf.
    w_gate, w_up = tensor([[1e4], [-1e4]]), tensor([[2.0], [3.0]])
    grads = swiglu_backward(tensor([1.0]), tensor([1.0]), w_gate, w_up, tensor([[1.0, 1.0]]))
    grad_x, grad_gate, grad_up, grad_down = grads
    assert_close(grad_gate, tensor([[2.0], [0.0]]), "exp of a large number")
    assert_close(grad_up, tensor([[1e4], [0.0]]))
    assert_close(grad_down, tensor([[2e4, 0.0]]))
    assert_close(grad_x, tensor([4e4]))


def test_a_shut_gate_is_shut_in_float16_however_large_the_rest_is(swiglu_backward):
    # 300 comes back to hidden and up is 300: their product is beyond 65504, and infinity times 0 is NaN.
    call = [[300.0], [1.0], [[-30.0]], [[300.0]], [[1.0]]]
    for gradient in swiglu_backward(*(tensor(argument, torch.float16) for argument in call)):
        assert_close(gradient, torch.zeros_like(gradient), "the slope of the gate is zero: up comes after it")


def test_five_thousand_tokens_add_up_in_bfloat16(swiglu_backward):
    # bfloat16 counts to 256 and no further.
    ones = torch.ones(5000, 1, dtype=torch.bfloat16, device=tensor(0.0).device)
    _, *of_weights = swiglu_backward(ones, ones, 20 * ones[:1], ones[:1], ones[:1])
    for gradient, right in zip(of_weights, (5000.0, 100_000.0, 100_000.0), strict=True):
        assert_close(gradient, tensor([[right]], torch.bfloat16), "sums over tokens: at least in float32")


@pytest.mark.tensors
def test_each_gradient_has_the_dtype_of_its_argument(swiglu_backward):
    one, weights = tensor([1.0], torch.bfloat16), [tensor([[w]], torch.float32) for w in (20.0, 3.001, 2.0)]
    grad_x, grad_gate, grad_up, grad_down = swiglu_backward(one, one, *weights)
    assert_close(grad_x, tensor([240.0], torch.bfloat16))
    assert_close(grad_gate, tensor([[6.002]], torch.float32), "weights in float32 have their gradients in float32")
    assert_close(grad_up, tensor([[40.0]], torch.float32))
    assert_close(grad_down, tensor([[60.02]], torch.float32))


def test_the_gate_decides_how_much_comes_back_and_to_whom(swiglu_backward, plot):
    # The first feature of a token is its gate and the second its up-projection; both are read by one hidden feature.
    gate, up = torch.linspace(-6, 6, 61), torch.tensor([-2.0, -1.0, 1.0, 2.0])
    x = tensor(torch.stack((gate.expand(4, 61), up[:, None].expand(4, 61)), dim=-1).tolist())
    grad = tensor([1.0, 0.0]).expand(4, 61, 2)
    grad_x, *_ = swiglu_backward(grad, x, tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]]), tensor([[1.0], [0.0]]))
    to_gate, to_up = grad_x.unbind(-1)
    lines = {f"up {u:g}": line for u, line in zip(up, to_gate, strict=True)}
    plot(gate, lines, title="what comes back to the gate", xlabel="gate")
    plot(gate, {"what comes back to up, whatever it is": to_up[0]}, xlabel="gate")
    s = torch.sigmoid(gate)
    assert_close(to_gate, tensor((up[:, None] * (s + gate * s * (1 - s))).tolist()))
    assert_close(to_up, tensor((gate * s).expand(4, 61).tolist()))


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(swiglu_backward):
    sentence = r"swiglu_backward: x must be \[... d_model\] with ...=\(2,\) d_model=5, got \[2, 3\]"
    with pytest.raises(ValueError, match=sentence):
        swiglu_backward(torch.ones(2, 5), torch.ones(2, 3), torch.ones(5, 3), torch.ones(5, 3), torch.ones(3, 5))


@pytest.mark.refusal
def test_a_gate_for_another_d_model_is_refused(swiglu_backward):
    sentence = r"swiglu_backward: w_gate must be \[d_ff d_model\] with d_model=3, got \[3, 5\]"
    with pytest.raises(ValueError, match=sentence):
        swiglu_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 5), torch.ones(5, 3), torch.ones(3, 5))


@pytest.mark.refusal
def test_a_down_projection_the_wrong_way_round_is_refused(swiglu_backward):
    sentence = r"swiglu_backward: w_down must be \[d_model d_ff\] with d_model=3 d_ff=5, got \[5, 3\]"
    with pytest.raises(ValueError, match=sentence):
        swiglu_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(5, 3), torch.ones(5, 3), torch.ones(5, 3))
