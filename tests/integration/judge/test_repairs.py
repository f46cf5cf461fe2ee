"""The one change that would make a result right, where no known bug fits."""

import math

import pytest
import torch

from llama import implementation
from tests.judge.telling.diagnosis import repaired
from tests.judge.telling.repairs import Result, repair

OURS = implementation.load("vectorized")


def _interleaved(x, positions, frequencies):
    return torch.stack(OURS.rope(x, positions, frequencies).chunk(2, -1), -1).flatten(-2)


def _moments_swapped(*args, **kwargs):
    param, exp_avg, exp_avg_sq = OURS.adamw(*args, **kwargs)
    return param, exp_avg_sq, exp_avg


FOUND = [
    ("silu", lambda x: -OURS.silu(x), "Your output is the right one with its sign turned."),
    ("silu", lambda x: 3 * OURS.silu(x), "Your output is the right one multiplied by 3."),
    ("silu", lambda x: OURS.silu(x) - 0.25, "Your output is the right one with -0.25 added to it."),
    ("silu", lambda x: OURS.silu(x).flip(-1), "Your output is the right one in reverse order along axis 2."),
    ("softmax", lambda x: OURS.softmax(x) * x.shape[-1], "Your output is the right one multiplied by n."),
    ("softmax", lambda x: OURS.softmax(x).exp(), "Your output is the exponential of the right one."),
    ("cross_entropy", lambda x, t: OURS.cross_entropy(x, t).exp(), "Your output is the exponential of the right one."),
    ("swiglu", lambda x, *w: OURS.swiglu(x, *w) + x, "Your output is the right one with x added to it."),
    (
        "linear",
        lambda x, weight: OURS.linear(x, weight) / math.sqrt(x.shape[-1]),
        "Your output is the right one multiplied by 1/sqrt(d_in).",
    ),
    (
        "decoder_layer",
        lambda x, *rest, **how: OURS.decoder_layer(x, *rest, **how) - x,
        "Your output is the right one without x, which is to be added.",
    ),
    ("rope", _interleaved, "Your output is the right one with its two halves interleaved along the last axis."),
    (
        "attention",
        lambda *args, **how: OURS.attention(*args, **how).transpose(1, 2),
        "Your output is the right one with n_heads and q_len exchanged.",
    ),
    (
        "llama",
        lambda *args: OURS.llama(*args)[:, -1:],
        "Your output is the right one for the last position alone.",
    ),
    (
        "embedding",
        lambda *args: OURS.embedding(*args).flatten(0, 1),
        "Your output is right in its numbers, but of another shape.",
    ),
    ("sample", lambda *args: OURS.sample(*args) + 1, "Your output is the right one with 1 added to it."),
    ("adamw", _moments_swapped, "Your results are right, but in another order: first comes out[0] of the right ones."),
    (
        "rms_norm",
        lambda x, w, eps=1e-5: x / x.abs().amax(-1, keepdim=True) * w,
        "Your output is the right one with each row multiplied by a number of its own: what a row (all of one d_model "
        "axis) is divided by is wrong.",
    ),
]


@pytest.mark.parametrize(
    ("of", "function", "sentence"), FOUND, ids=[f"{layer} {said[:40]}" for layer, _, said in FOUND]
)
def test_one_change_is_found(of, function, sentence):
    assert repaired(of, function) == sentence


def test_the_order_of_thirty_parts_is_found_though_nobody_could_try_all_orders():
    right = [torch.tensor([float(i), 1.0]) for i in range(30)]
    turned = [Result(theirs, of) for theirs, of in zip(reversed(right), right, strict=True)]
    told = "Your results are right, but in another order: first comes out[29] of the right ones."
    assert repair("llama_backward", [turned, turned]) == told


@pytest.mark.parametrize("of", ["silu", "attention", "adamw", "clip_grad_norm"])
def test_of_a_right_layer_nothing_is_said(of):
    assert repaired(of, getattr(OURS, of)) == ""


@pytest.mark.parametrize(
    ("of", "function"),
    [
        ("silu", lambda x: x.sin()),
        ("softmax", lambda x: x.abs().cos()),
        ("rms_norm", lambda x, w, eps=1e-5: x.tanh() * w.cos()),
        ("linear", lambda x, w: (x @ w.T).sin()),
    ],
)
def test_of_what_no_single_change_mends_nothing_is_said(of, function):
    assert repaired(of, function) == ""


def test_a_change_that_holds_in_one_call_alone_is_not_named():
    assert repaired("silu", lambda x: 3 * OURS.silu(x) if x.sum() > 0 else x.sin()) == ""
