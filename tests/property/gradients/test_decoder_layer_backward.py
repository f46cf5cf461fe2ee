"""What defines the gradient of a decoder layer, whatever the sizes. That it is the derivative is in every_layer/."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases.calls import arguments
from tests.cases.case import Case, cases
from tests.cases.sizes import small
from tests.cases.weights import frequencies, layer_weights, positions
from tests.judge.assertions import assert_close, assert_equals_formula, assert_identical

SIZES = "batch seq n_kv_heads groups half d_model d_ff"
W_O, W_DOWN = "self_attn.o_proj.weight", "mlp.down_proj.weight"
NORM, FFN_NORM = "input_layernorm.weight", "post_attention_layernorm.weight"


def _arguments(case):
    at = positions(case, "batch seq" if case.seed % 2 else "seq") % 8
    how = case.n_heads, case.n_kv_heads, at, frequencies(case)
    return case.normal("batch seq d_model"), case.away_from_zero("batch seq d_model"), layer_weights(case), how


def _without(weights, *names):
    return weights | {name: torch.zeros_like(weights[name]) for name in names}


@given(case=cases(SIZES))
def test_grad_passes_through_where_both_output_projections_are_zero(decoder_layer_backward, case):
    grad, x, weights, how = _arguments(case)
    grad_x, gradients = decoder_layer_backward(grad, x, _without(weights, W_O, W_DOWN), *how)
    assert_close(grad_x, grad, "the two residual sums: each passes grad on as it is")
    for name in gradients.keys() - {W_O, W_DOWN}:
        nothing = torch.zeros_like(weights[name])
        assert_close(gradients[name], nothing, "only what reaches the result", name=f'gradients["{name}"]')


@pytest.mark.parametrize(("silent", "norm"), [(W_O, NORM), (W_DOWN, FFN_NORM)])
@given(case=cases(SIZES))
def test_a_block_that_adds_nothing_has_no_part_in_grad_x(decoder_layer_backward, silent, norm, case):
    grad, x, weights, how = _arguments(case)
    weights = _without(weights, silent)
    changed = weights | {norm: 3 * case.normal("d_model")}
    before, after = (decoder_layer_backward(grad, x, w, *how)[0] for w in (weights, changed))
    assert_close(after, before, "two norms, two branches")


@given(case=cases(SIZES))
def test_what_comes_back_from_the_blocks_adds_up_where_one_of_them_is_silent(decoder_layer_backward, case):
    # Twice w_down is twice what comes back from the feed-forward block; without attention nothing else depends on it.
    grad, x, weights, how = _arguments(case)
    weights = _without(weights, W_O)
    once, _ = decoder_layer_backward(grad, x, weights, *how)
    twice, _ = decoder_layer_backward(grad, x, weights | {W_DOWN: 2 * weights[W_DOWN]}, *how)
    assert_close(twice - grad, 2 * (once - grad), "grad is added once, as it is")


@pytest.mark.parametrize("silent", [W_O, W_DOWN])
@given(case=cases(SIZES), factor=st.sampled_from([0.25, 8.0]))
def test_what_comes_back_from_a_block_is_the_smaller_the_larger_x_is(decoder_layer_backward, silent, case, factor):
    # The block reads the norm, which has no scale (eps aside); what is passed on by the sum has none either.
    grad, x, weights, how = _arguments(case)
    weights = _without(weights, silent)
    before, after = (decoder_layer_backward(grad, t, weights, *how, eps=0.0)[0] for t in (x, factor * x))
    assert_close(factor * (after - grad), before - grad, "the gradient of the norm, of x itself")


@given(case=cases(SIZES))
def test_a_norm_gets_as_much_along_its_weight_as_what_reads_it(decoder_layer_backward, case):
    # Twice the norm's weight is as good as twice w_gate and w_up, or twice w_q, w_k and w_v.
    grad, x, weights, how = _arguments(case)
    _, gradients = decoder_layer_backward(grad, x, weights, *how)
    for norm, names in ((NORM, ("self_attn.q", "self_attn.k", "self_attn.v")), (FFN_NORM, ("mlp.gate", "mlp.up"))):
        products = {name: (gradients[name] * weights[name]).double() for name in weights}
        readers = [products[f"{name}_proj.weight"] for name in names]
        scale = 1 + sum(p.abs().sum() for p in (products[norm], *readers))
        share = ((products[norm].sum() - sum(p.sum() for p in readers)) / scale).to(x.dtype)
        assert_close(share, torch.zeros_like(share), "which gradient belongs to which name", name=norm)


@given(case=cases(SIZES, seq=(2, 7)))
def test_a_token_gives_nothing_to_later_ones(decoder_layer_backward, case):
    grad, x, weights, how = _arguments(case)
    first = 1 + case.seed % (case.seq - 1)
    only = grad.clone()
    only[:, first:] = 0
    later = decoder_layer_backward(only, x, weights, *how)[0][:, first:]
    assert_identical(later, torch.zeros_like(later), "attention to later positions")


@pytest.mark.tensors
@given(case=cases(SIZES), eps=st.sampled_from([1e-8, 1e-3, 1.0]))
def test_eps_is_the_one_passed_in_both_norms(decoder_layer_backward, case, eps):
    # x far below 1, so that eps decides what the norms make of it; without w_o the second norm sees x as well.
    grad, x, weights, how = _arguments(case)
    weights = _without(weights, W_O if case.seed % 2 else W_DOWN)
    assert_equals_formula(decoder_layer_backward, grad, x * 1e-2, weights, *how, eps=eps, look_at="eps in both norms")


@pytest.mark.tensors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_far_positions_are_told_apart_in_half_precision(decoder_layer_backward, dtype):
    # bfloat16 counts 1000, 1004, 1008, and float16 counts 4096, 4100, 4104.
    for seed in range(4):
        args, kwargs = arguments("decoder_layer_backward", Case(small("decoder_layer_backward"), dtype, seed))
        args = (*args[:5], args[5] + 4097, *args[6:])
        look_at = "positions or angles in the dtype of x"
        assert_equals_formula(decoder_layer_backward, *args, look_at=look_at, **kwargs)
