"""The bugs that people make in swiglu."""

import torch
import torch.nn.functional as F


def up_is_activated(x, w_gate, w_up, w_down):
    """the up-projection is activated and the gate is not.

    Tempting: papers call the two W and V, checkpoints w1 and w3, and both have one shape.
    Seen: ml-explore/mlx-lm#767.
    """
    return (x @ w_gate.T * F.silu(x @ w_up.T)) @ w_down.T


def product_is_activated(x, w_gate, w_up, w_down):
    """the product of gate and up-projection is activated, and not the gate alone.

    Tempting: a bracket in the wrong place.
    Seen: Nijikadesu/breakdown-minimind#3.
    """
    return F.silu((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def no_up_projection(x, w_gate, w_up, w_down):
    """nothing is multiplied by the up-projection: it is a plain two-layer block with SiLU.

    Tempting: "swiglu" is taken for the name of an activation.
    Seen: google-research/timesfm#493.
    """
    return F.silu(x @ w_gate.T) @ w_down.T


def gate_has_gelu(x, w_gate, w_up, w_down):
    """the gate is activated by GELU, which makes it GEGLU.

    Tempting: GEGLU comes from the same paper, and Gemma has it in this place.
    """
    return (F.gelu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def merged_weight_split_alternately(x, w_gate, w_up, w_down):
    """gate and up are computed in one product, one after the other, and taken apart by even and odd features.

    Tempting: one product is faster than two, and some checkpoints do alternate the two.
    """
    both = x @ torch.cat((w_gate, w_up)).T
    return (F.silu(both[..., 0::2]) * both[..., 1::2]) @ w_down.T
