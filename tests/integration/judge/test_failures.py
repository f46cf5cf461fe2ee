"""What a failing test is told by: where the wrong elements lie, which bug it is, and a picture."""

import functools
import math

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llama import implementation
from llama.implementation import map_leaves, tensors
from llama.layers import LAYERS
from tests import zoo
from tests.judge.assertions import Mismatch, assert_finite, differences
from tests.judge.telling.diagnosis import behind_other_faults, diagnose, lesser_faults
from tests.judge.telling.locations import axes, where
from tests.judge.telling.pictures import save_comparison

OURS = [(name, layer) for name in ("vectorized", "fused") for layer in LAYERS]
NAMES = ["batch", "n_heads", "seq", "head_dim"]


def _wrong(*index):
    wrong = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    wrong[index] = True
    return wrong


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (_wrong(), "all 240 elements are wrong"),
        (_wrong(slice(None), slice(2, 4)), "120 of 240 elements are wrong: only heads 2 and 3"),
        (_wrong(slice(None), slice(None), slice(1, None)), "192 of 240 elements are wrong: every position but 0"),
        (_wrong(..., slice(3, 6)), "120 of 240 elements are wrong: only features 3 to 5"),
        (_wrong(1, 3), "30 of 240 elements are wrong: only batch entry 1, only head 3"),
        (torch.ones(1, dtype=torch.bool), ""),
    ],
)
def test_where_the_wrong_elements_lie_is_said_in_words(wrong, words):
    assert where(wrong, NAMES[-wrong.ndim :]) == words


def test_a_triangle_is_named():
    above = torch.ones(3, 3, dtype=torch.bool).triu(1)
    assert "above the diagonal of q_len and kv_len" in where(above, ["q_len", "kv_len"])
    assert "below the diagonal of q_len and kv_len" in where(above.T, ["q_len", "kv_len"])


def test_axes_have_the_names_of_the_contract():
    assert axes("attention", 4) == ["batch", "n_heads", "q_len", "head_dim"]
    assert axes("rms_norm", 3) == ["batch", "seq", "d_model"]
    assert axes("llama", 3) == ["batch", "seq", "vocab"]
    assert axes("rope", 2) == ["axis 0", "axis 1"]
    assert axes("attention_backward", 4, 1) == ["batch", "n_kv_heads", "kv_len", "head_dim"]
    assert axes("linear_backward", 2, 1) == ["d_out", "d_in"]


def _bugs(layer):
    """As many bugs of the layer as the profile has examples, from all of its list; thorough asks about each."""
    bugs = zoo.bugs(layer)
    few = min(len(bugs), max(15, hypothesis.settings.default.max_examples))
    return [bugs[i * len(bugs) // few] for i in range(few)]


@pytest.mark.parametrize("of", LAYERS)
def test_the_diagnosis_names_each_bug_of_the_zoo_and_no_other(of):
    named = {bug.name: [suspect.name for suspect in diagnose(of, bug.function)] for bug in _bugs(of)}
    assert {bug: suspects for bug, suspects in named.items() if suspects != [bug]} == {}


@pytest.mark.parametrize(("of", "name"), OURS)
def test_the_diagnosis_is_silent_for_a_right_layer(of, name):
    layer = getattr(implementation.load(of), name)
    assert diagnose(name, layer) == behind_other_faults(name, layer) == []


def _with_other_faults(layer):
    """It writes over its arguments, rounds float64 to float32, and cuts off the gradient."""

    def faulty(*args, **kwargs):
        y = map_leaves(lambda leaf: leaf.detach().float() if _is_float(leaf) else leaf, layer(*args, **kwargs))
        for leaf in tensors((args, kwargs)):
            leaf.detach().zero_()
        return y

    return faulty


def _is_float(leaf):
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


@pytest.mark.parametrize("of", LAYERS)
def test_other_faults_do_not_hide_a_bug_and_never_turn_it_into_another(of):
    with_them, without = (
        {bug.name: [suspect.name for suspect in behind_other_faults(of, change(bug.function))] for bug in _bugs(of)}
        for change in (_with_other_faults, lambda layer: layer)
    )
    assert with_them == without
    assert all(bug in suspects for bug, suspects in without.items() if suspects), without
    assert any(without.values())


def test_a_gradient_that_is_sparse_is_that_of_no_bug():
    assert diagnose("embedding", functools.partial(F.embedding, sparse=True)) == []


def test_what_is_nan_does_not_hide_a_bug_either():
    def attention(q, k, v, causal=True, mask=None):
        q_len, kv_len = q.shape[2], k.shape[2]
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if causal:
            visible = torch.ones(q_len, kv_len, dtype=torch.bool, device=q.device).tril(kv_len - q_len - 1)
            scores = scores.masked_fill(~visible, -torch.inf)
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v

    assert [bug.name for bug in behind_other_faults("attention", attention)] == ["itself_hidden"]


def test_a_mistake_that_is_not_in_the_zoo_is_not_given_the_name_of_another():
    assert diagnose("rms_norm", lambda x, weight, eps=1e-5: x * 0.123) == []


def test_a_picture_shows_what_is_not_finite_too(tmp_path):
    expected, actual = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    actual[1, 2, 3], actual[0, 0, 0] = torch.nan, 1e-3
    path = save_comparison(tmp_path / "a" / "b.png", "rope", expected, actual, ["batch", "seq", "d_model"])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_value_that_is_not_finite_is_shown_with_its_place():
    with pytest.raises(Mismatch, match=r"out\[1\] is nan but should be finite"):
        assert_finite(torch.tensor([1.0, np.nan]))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [(1.0, math.inf), (math.inf, 1.0), (-math.inf, math.inf), (math.nan, 1.0), (1.0, math.nan), (math.inf, math.nan)],
)
def test_only_the_same_infinity_is_equal_to_an_infinity_and_nothing_to_nan(actual, expected):
    _, wrong = differences(torch.tensor([2.0, actual, math.inf]), torch.tensor([2.0, expected, math.inf]))
    assert wrong.tolist() == [False, True, False]


def _clockwise_and_for_single_sequences(x, positions, frequencies):
    angle = positions[:, None].double() * frequencies  # only [seq]
    (a, b), cos, sin = x.chunk(2, -1), angle.cos(), angle.sin()
    return torch.cat((a * cos + b * sin, b * cos - a * sin), -1).float().to(x.dtype)


@pytest.mark.parametrize(
    ("of", "function", "bug", "besides"),
    [
        (
            "rope",
            _clockwise_and_for_single_sequences,
            "clockwise",
            ["it raises RuntimeError for x[3, 9, 7, 10], positions[3, 7], frequencies[5]"],
        ),
        (
            "rms_norm",
            lambda x, weight, eps=1e-5: (
                x.float() * (x.float().pow(2).sum(-1, keepdim=True) + eps).rsqrt() * weight.float()
            ),
            "divided_by_the_length",
            [
                "in float64 the result is float32",
                "in bfloat16 the result is float32",
                "in float16 the result is float32",
            ],
        ),
    ],
)
def test_lesser_faults_are_told_beside_the_bug(of, function, bug, besides):
    (found,) = behind_other_faults(of, function)
    assert found.name == bug
    assert lesser_faults(of, function, found) == besides
