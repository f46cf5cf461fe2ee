"""The bugs that people make in silu."""

import torch
import torch.nn.functional as F

from tests.cases import target


def probes():
    return [((target.tensor([-1e4, 1e4]).double(),), {})]


def gelu_instead(x):
    """the activation is GELU.

    Tempting: the two curves look alike, and GPT has GELU in this place.
    """
    return F.gelu(x)


def slope_of_quick_gelu(x):
    """the sigmoid is taken of 1.702 x, as in the quick form of GELU.

    Tempting: x * sigmoid(1.702 * x) is written next to SiLU in every list of activations.
    """
    return x * torch.sigmoid(1.702 * x)


def sigmoid_written_out(x):
    """the sigmoid is written as 1 / (1 + exp(-x)): the value is right, but far below zero the gradient is 0 · inf.

    Tempting: the value is right everywhere, and only the backward pass shows it.
    Seen: trymirai/lalamo#328.
    """
    return x / (1 + torch.exp(-x))


def done_in_place(x):
    """the output overwrites x, which the caller may still need.

    Tempting: inplace=True saves memory and gives the right output.
    """
    return F.silu(x, inplace=True)
