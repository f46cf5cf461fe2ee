"""What defines the decoder layer, whatever the sizes. That it equals the naive loops is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import arguments
from tests.cases.case import Case, cases
from tests.cases.sizes import small
from tests.cases.weights import frequencies, layer_weights, positions
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical
from tests.judge.subject import REFERENCE, exact

SIZES = "batch seq n_kv_heads groups half d_model d_ff"
W_O, W_DOWN = "self_attn.o_proj.weight", "mlp.down_proj.weight"
# The norm of a vector of one or two features may be near zero, where it magnifies rounding.
WIDE = {"d_model": (3, 11)}


def heads(case):
    return case.n_heads, case.n_kv_heads, positions(case, "batch seq" if case.seed % 2 else "seq"), frequencies(case)


def without(weights, *names):
    return weights | {name: torch.zeros_like(weights[name]) for name in names}


def composed(x, weights, n_heads, n_kv_heads, at, turns, eps):
    """The two residual blocks, from the naive loops of their parts, in float64."""
    x, w, at, turns = exact((x, weights, at, turns))
    projections = [w[f"self_attn.{name}_proj.weight"] for name in "qkvo"]
    normed = REFERENCE.rms_norm(x, w["input_layernorm.weight"], eps)
    h = x + REFERENCE.self_attention(normed, *projections, n_heads, n_kv_heads, at, turns)
    normed = REFERENCE.rms_norm(h, w["post_attention_layernorm.weight"], eps)
    return h + REFERENCE.swiglu(normed, *(w[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")))


@given(case=cases(SIZES, **WIDE))
def test_it_is_attention_and_then_the_feed_forward_block_each_normed_before_and_added_after(decoder_layer, case):
    x, weights, where = case.normal("batch seq d_model"), layer_weights(case), heads(case)
    expected = composed(x, weights, *where, eps=1e-5)
    assert_close(decoder_layer(x, weights, *where), expected, dtype=case.dtype)


@given(case=cases(SIZES, **WIDE), eps=st.sampled_from([1e-8, 1e-3, 1.0]))
def test_eps_is_the_one_passed_in_both_norms(decoder_layer, case, eps):
    # x far below 1, so that eps decides what the norms make of it; without w_o the second norm sees x as well.
    x, where = case.normal("batch seq d_model", 1e-3), heads(case)
    weights = without(layer_weights(case), W_O if case.seed % 2 else W_DOWN)
    expected = composed(x, weights, *where, eps=eps)
    assert_close(decoder_layer(x, weights, *where, eps=eps), expected, "eps in both norms", dtype=case.dtype)


@given(case=cases(SIZES))
def test_it_is_the_identity_where_both_output_projections_are_zero(decoder_layer, case):
    x, weights = 100 * case.normal("batch seq d_model"), without(layer_weights(case), W_O, W_DOWN)
    assert_close(decoder_layer(x, weights, *heads(case)), x, "the residual: it carries x itself")


@pytest.mark.parametrize("silent", [W_O, W_DOWN])
@given(case=cases(SIZES), factor=st.sampled_from([0.25, 8.0]))
def test_what_a_block_adds_does_not_depend_on_the_scale_of_x(decoder_layer, silent, case, factor):
    # The block reads the norm, which has no scale (eps aside); x itself keeps its scale.
    x, weights, where = case.normal("batch seq d_model"), without(layer_weights(case), silent), heads(case)
    added = decoder_layer(x, weights, *where, eps=0.0) - x
    assert_close(decoder_layer(factor * x, weights, *where, eps=0.0), factor * x + added, "pre-norm: the norm reads x")


@pytest.mark.parametrize(
    ("silent", "norm"), [(W_O, "input_layernorm.weight"), (W_DOWN, "post_attention_layernorm.weight")]
)
@given(case=cases(SIZES))
def test_each_norm_weight_serves_its_own_block_only(decoder_layer, silent, norm, case):
    x, weights, where = case.normal("batch seq d_model"), without(layer_weights(case), silent), heads(case)
    changed = weights | {norm: 3 * case.normal("d_model")}
    assert_close(decoder_layer(x, changed, *where), decoder_layer(x, weights, *where), "two norms, two weights")


@given(case=cases(SIZES, seq=(2, 7)))
def test_a_later_token_changes_nothing_before_it(decoder_layer, case):
    x, weights, where = case.normal("batch seq d_model"), layer_weights(case), heads(case)
    first = 1 + case.seed % (case.seq - 1)
    changed = x.clone()
    changed[:, first:] = 100 * case.normal(x[:, first:].shape)
    before = decoder_layer(x, weights, *where)[:, :first]
    assert_identical(decoder_layer(changed, weights, *where)[:, :first], before, "attention to later positions")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_far_positions_are_told_apart_in_half_precision(decoder_layer, dtype):
    # bfloat16 counts 1000, 1004, 1008, and float16 counts 4096, 4100, 4104. What is added is seen where the stream is
    # small.
    for seed in range(4):
        args, kwargs = arguments("decoder_layer", Case(small("decoder_layer"), dtype, seed))
        x, positions = args[0] / 100, args[4] + 4097
        args = (x, *args[1:4], positions, *args[5:])
        assert_equals_formula(decoder_layer, *args, look_at="positions or angles in the dtype of x", **kwargs)


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_added_to_a_large_stream_is_right_in_half_precision(decoder_layer, dtype):
    # 300 squared is beyond float16; norms of weight 30 make what is added as large as the stream.
    for seed in range(4):
        args, kwargs = arguments("decoder_layer", Case(small("decoder_layer"), dtype, seed))
        weights = {name: 30 * w if "norm" in name else w for name, w in args[1].items()}
        look_at = "squares in at least float32"
        assert_equals_formula(decoder_layer, 300 * args[0], weights, *args[2:], look_at=look_at, **kwargs)
