"""SwiGLU: the feed-forward block of Llama, in which one projection opens and shuts another."""

import math

import pytest
import torch

from tests.assertions import assert_close
from tests.strategies import tensor

LOG3 = math.log(3)  # silu(ln 3) = 3/4 · ln 3


def test_the_activated_gate_multiplies_the_up_projection(swiglu):
    # d_model 1, d_ff 1: gate = ln 3, up = 2 · ln 3, down = 10: 10 · (3/4 · ln 3) · (2 · ln 3) = 15 · (ln 3)².
    one = swiglu(tensor([[LOG3]]), tensor([[1.0]]), tensor([[2.0]]), tensor([[10.0]]))
    assert_close(one, tensor([[15 * LOG3**2]]))


def test_the_gate_is_activated_and_the_up_projection_is_not(swiglu):
    # gate = -ln 3 (silu -1/4 · ln 3), up = ln 3. Activating up instead would give -3/4 · (ln 3)².
    y = swiglu(tensor([[LOG3]]), tensor([[-1.0]]), tensor([[1.0]]), tensor([[1.0]]))
    assert_close(y, tensor([[-0.25 * LOG3**2]]), "which of the two projections goes through silu")


def test_each_hidden_feature_has_its_own_gate(swiglu):
    # x = (ln 3, 1). Hidden 0: gate ln 3, up 1. Hidden 1: gate 0, shut. Down sends hidden 0 to the second output.
    x = tensor([[LOG3, 1.0]])
    w_gate, w_up = tensor([[1.0, 0.0], [0.0, 0.0]]), tensor([[0.0, 1.0], [5.0, 5.0]])
    w_down = tensor([[0.0, 7.0], [4.0, 7.0]])
    assert_close(swiglu(x, w_gate, w_up, w_down), tensor([[0.0, 3 * LOG3]]))


@pytest.mark.refusal
def test_a_down_projection_the_wrong_way_round_is_refused(swiglu):
    with pytest.raises(
        ValueError, match=r"swiglu: w_down must be \[d_model d_ff\] with d_model=2 d_ff=3, got \[3, 2\]"
    ):
        swiglu(torch.ones(1, 2), torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 2))
