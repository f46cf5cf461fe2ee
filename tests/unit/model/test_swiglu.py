"""SwiGLU: one projection, activated, opens and shuts another; a third leads back.

A gate of 20 is open: silu(20) = 20 to eight digits. A gate of -20 is shut: silu(-20) = -0.00000004.
"""

import math

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close


def test_the_gate_times_the_up_projection_goes_down(swiglu):
    # 2 · (20 · 3)
    assert_close(swiglu(tensor([1.0]), tensor([[20.0]]), tensor([[3.0]]), tensor([[2.0]])), tensor([120.0]))


def test_the_up_projection_is_not_activated(swiglu):
    # 2 · (20 · -3). Activated, -3 would become -0.14, and the product -60 would become 0.
    out = swiglu(tensor([1.0]), tensor([[20.0]]), tensor([[-3.0]]), tensor([[2.0]]))
    assert_close(out, tensor([-120.0]), "which of gate and up is activated, and that the product is not")


def test_a_gate_far_below_zero_is_shut(swiglu):
    out = swiglu(tensor([1.0]), tensor([[-20.0]]), tensor([[3.0]]), tensor([[2.0]]))
    assert_close(out, tensor([0.0]), "which of gate and up is activated")


def test_the_activation_of_the_gate_is_silu(swiglu):
    # silu(ln 3) = 1.098612 · 3/4 = 0.823959, times 2. GELU gives 1.898, ReLU 2.197, the sigmoid alone 1.5.
    out = swiglu(tensor([1.0]), tensor([[math.log(3)]]), tensor([[2.0]]), tensor([[1.0]]))
    assert_close(out, tensor([1.647918]))


def test_each_hidden_feature_has_a_gate_of_its_own(swiglu):
    # Gates 20, -20 and 40; up 3, 4 and 5: 60 and 0 and 200 go down to 60 + 200 and 60 · 2 - 200.
    w_gate = tensor([[20.0, 0.0], [0.0, -20.0], [20.0, 20.0]])
    w_up = tensor([[3.0, 0.0], [0.0, 4.0], [5.0, 0.0]])
    w_down = tensor([[1.0, 1.0, 1.0], [2.0, 2.0, -1.0]])
    assert_close(swiglu(tensor([1.0, 1.0]), w_gate, w_up, w_down), tensor([260.0, -80.0]))


def test_square_weights_are_out_by_in_too(swiglu):
    # Gates 20 and 30, up 10 and 20, so 200 and 600 go down to 200 + 600 and 600.
    w_gate, w_up = tensor([[20.0, 0.0], [30.0, 0.0]]), tensor([[0.0, 1.0], [0.0, 2.0]])
    out = swiglu(tensor([1.0, 10.0]), w_gate, w_up, tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert_close(out, tensor([800.0, 600.0]), "a transposed weight")


def test_each_token_is_computed_by_itself(swiglu):
    # Opened by 1 and by 2, shut by -1: 20 · 3, 40 · 6, 0; and 60 · 9.
    x, expected = tensor([[[1.0], [2.0]], [[-1.0], [3.0]]]), tensor([[[60.0], [240.0]], [[0.0], [540.0]]])
    assert_close(swiglu(x, tensor([[20.0]]), tensor([[3.0]]), tensor([[1.0]])), expected)


def test_gates_of_ten_thousand_and_of_minus_ten_thousand_are_open_and_shut(swiglu):
    # 10000 · 2 and 0 · 3. Written as g · e^g / (1 + e^g), the first would be inf / inf.
    out = swiglu(tensor([1.0]), tensor([[1e4], [-1e4]]), tensor([[2.0], [3.0]]), tensor([[1.0, 1.0]]))
    assert_close(out, tensor([20000.0]), "exp of a large number")


def test_the_gate_decides_how_much_of_the_up_projection_passes(swiglu, plot):
    # The first feature of a token is its gate and the second its up projection; both are read by one hidden feature.
    gate, up = torch.linspace(-6, 6, 61), torch.tensor([-2.0, -1.0, 1.0, 2.0])
    wave = (2 * gate).sin()
    ups = torch.stack([*up[:, None].expand(4, 61), wave])
    x = torch.stack((gate.expand(5, 61), ups), dim=-1)
    y = swiglu(tensor(x.tolist()), tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]]), tensor([[1.0], [0.0]]))[..., 0]
    lines = {f"up {u:g}": out for u, out in zip(up, y, strict=False)}
    plot(gate, lines, title="silu(gate) · up", xlabel="gate", ylabel="what passes")
    opened = {"up": wave, "what passes": y[4]}
    plot(gate, opened, title="an up projection that swings, while the gate opens", xlabel="gate")
    assert_close(y, tensor((gate * torch.sigmoid(gate) * ups).tolist()))


@pytest.mark.tensors
def test_their_slopes_are_one_and_zero(swiglu):
    # y = 2 · gate, and 3 · 0. Written as g / (1 + e^-g), the slope of the second would be 0 · inf.
    w_gate = tensor([[1e4], [-1e4]]).requires_grad_()
    swiglu(tensor([1.0]), w_gate, tensor([[2.0], [3.0]]), tensor([[1.0, 1.0]])).sum().backward()
    assert_close(w_gate.grad, tensor([[2.0], [0.0]]), "exp of a large number, in the backward pass")


@pytest.mark.tensors
def test_the_gradient_reaches_x_through_gate_and_up(swiglu):
    # With the gate open, y = 20x · 3x, and its slope at 1 is 2 · 60.
    x = tensor([1.0]).requires_grad_()
    swiglu(x, tensor([[20.0]]), tensor([[3.0]]), tensor([[1.0]])).sum().backward()
    assert_close(x.grad, tensor([120.0]))


@pytest.mark.refusal
def test_a_gate_for_another_d_model_is_refused(swiglu):
    with pytest.raises(ValueError, match=r"swiglu: w_gate must be \[d_ff d_model\] with d_model=3, got \[3, 5\]"):
        swiglu(torch.ones(2, 3), torch.ones(3, 5), torch.ones(5, 3), torch.ones(3, 5))


@pytest.mark.refusal
def test_an_up_projection_of_another_shape_than_the_gate_is_refused(swiglu):
    with pytest.raises(ValueError, match=r"swiglu: w_up must be \[d_ff d_model\] with d_ff=5 d_model=3, got \[3, 5\]"):
        swiglu(torch.ones(2, 3), torch.ones(5, 3), torch.ones(3, 5), torch.ones(3, 5))


@pytest.mark.refusal
def test_a_down_projection_the_wrong_way_round_is_refused(swiglu):
    sentence = r"swiglu: w_down must be \[d_model d_ff\] with d_model=3 d_ff=5, got \[5, 3\]"
    with pytest.raises(ValueError, match=sentence):
        swiglu(torch.ones(2, 3), torch.ones(5, 3), torch.ones(5, 3), torch.ones(5, 3))


@pytest.mark.tensors
@pytest.mark.refusal
def test_a_weight_of_another_dtype_is_refused(swiglu):
    with pytest.raises(ValueError, match="swiglu: w_down must be float32 like x, got float64"):
        swiglu(torch.ones(2, 3), torch.ones(5, 3), torch.ones(5, 3), torch.ones(3, 5, dtype=torch.float64))
