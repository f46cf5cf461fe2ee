"""Decoder layer: x plus what attention makes of its norm, plus what the feed-forward block makes of that norm."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

ZERO, ONE = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
NORM_AND_SUM = "where the norm stands, and what the block is added to"


def layer(norm=(1.0, 1.0), w_q=ZERO, w_k=ZERO, w_v=ZERO, w_o=ZERO, ffn_norm=(1.0, 1.0), w_gate=0, w_up=0, w_down=0):
    """The weights of a layer with d_model=2, one head of 2 features and d_ff=1, under Hugging Face's names."""
    weights = {
        "input_layernorm.weight": norm,
        "self_attn.q_proj.weight": w_q,
        "self_attn.k_proj.weight": w_k,
        "self_attn.v_proj.weight": w_v,
        "self_attn.o_proj.weight": w_o,
        "post_attention_layernorm.weight": ffn_norm,
        "mlp.gate_proj.weight": w_gate or [[0.0, 0.0]],
        "mlp.up_proj.weight": w_up or [[0.0, 0.0]],
        "mlp.down_proj.weight": w_down or [[0.0], [0.0]],
    }
    return {name: tensor(values) for name, values in weights.items()}


def one_head(*tokens):
    """x, and what follows the weights: n_heads, n_kv_heads, positions, frequencies."""
    return tensor([tokens]), (1, 1, tensor(list(range(len(tokens)))), tensor([1.0]))


def test_where_both_blocks_add_nothing_x_passes_through(decoder_layer):
    x, heads = one_head([3.0, -4.0], [0.5, 7.0])
    assert_close(decoder_layer(x, layer(w_v=ONE, w_gate=[[1.0, 2.0]], w_up=[[3.0, 4.0]]), *heads), x)


def test_attention_reads_the_norm_of_x_and_adds_to_x_itself(decoder_layer):
    # A token alone attends to itself. The root mean square of 30, 40 is sqrt(1250), so 0.848528, 1.131371 is added.
    x, heads = one_head([30.0, 40.0])
    expected = tensor([[[30.848528, 41.131371]]])
    assert_close(decoder_layer(x, layer(w_v=ONE, w_o=ONE), *heads, eps=0.0), expected, NORM_AND_SUM)


def test_the_feed_forward_block_reads_the_norm_of_x_and_adds_to_x_itself(decoder_layer):
    # The norm is 1, -1; the gate is silu(20) = 20, up is 3 - 1 = 2, so 0.5 · 40 and 0.25 · 40 are added to 5, -5.
    x, heads = one_head([5.0, -5.0])
    weights = layer(w_gate=[[10.0, -10.0]], w_up=[[3.0, 1.0]], w_down=[[0.5], [0.25]])
    assert_close(decoder_layer(x, weights, *heads, eps=0.0), tensor([[[25.0, 5.0]]]), NORM_AND_SUM)


def test_the_feed_forward_block_reads_what_attention_has_left(decoder_layer):
    # Attention turns 1, 1 into 1, -1, so the gate is 20 and 20 · 2 is added to the first feature. On x it would be 0.
    x, heads = one_head([1.0, 1.0])
    block = {"w_gate": [[10.0, -10.0]], "w_up": [[1.0, -1.0]], "w_down": [[1.0], [0.0]]}
    weights = layer(w_v=ONE, w_o=[[0.0, 0.0], [-1.0, -1.0]], **block)
    assert_close(decoder_layer(x, weights, *heads, eps=0.0), tensor([[[41.0, -1.0]]]))


def test_attention_has_the_norm_weight_of_the_input(decoder_layer):
    x, heads = one_head([1.0, 1.0])
    weights = layer(norm=(3.0, 5.0), ffn_norm=(7.0, 11.0), w_v=ONE, w_o=ONE)
    assert_close(decoder_layer(x, weights, *heads, eps=0.0), tensor([[[4.0, 6.0]]]), "which norm weight is used")


def test_the_feed_forward_block_has_the_norm_weight_of_its_own(decoder_layer):
    # The norm is 3, 5: the gate is silu(5 · 3 + 5) = 20, up is 3, so 60 and 120 are added.
    x, heads = one_head([1.0, 1.0])
    block = {"w_gate": [[5.0, 1.0]], "w_up": [[1.0, 0.0]], "w_down": [[1.0], [2.0]]}
    weights = layer(norm=(7.0, 11.0), ffn_norm=(3.0, 5.0), **block)
    assert_close(decoder_layer(x, weights, *heads, eps=0.0), tensor([[[61.0, 121.0]]]), "which norm weight is used")


def test_a_token_attends_to_itself_and_those_before_it(decoder_layer):
    # Queries of zero take the mean of the norms they see: 1, 1 alone, then the mean of 1, 1 and 1, -1.
    x, heads = one_head([1.0, 1.0], [5.0, -5.0])
    assert_close(decoder_layer(x, layer(w_v=ONE, w_o=ONE), *heads, eps=0.0), tensor([[[2.0, 2.0], [6.0, -5.0]]]))


def test_positions_times_frequencies_turn_queries_and_keys(decoder_layer):
    # q and k of both tokens point along 1, 1 and 1, -1: 90 degrees apart. Seven positions at frequency 0.1 turn the
    # second by 0.7: scores 2 sin(0.7) / sqrt(2) = 0.911061 and 2 / sqrt(2), so it takes 0.376800 of the first.
    x, weights = tensor([[[1.0, 1.0], [1.0, -1.0]]]), layer(w_q=ONE, w_k=ONE, w_v=ONE, w_o=ONE)
    y = decoder_layer(x, weights, 1, 1, tensor([3, 10]), tensor([0.1]), eps=0.0)
    assert_close(y, tensor([[[2.0, 2.0], [2.0, -1.246400]]]))


def test_eps_is_the_one_passed_in_the_norm_before_attention(decoder_layer):
    # 1 / sqrt(1 + 3) = 0.5 is added.
    x, heads = one_head([1.0, 1.0])
    assert_close(decoder_layer(x, layer(w_v=ONE, w_o=ONE), *heads, eps=3.0), tensor([[[1.5, 1.5]]]))


def test_eps_is_the_one_passed_in_the_norm_before_the_feed_forward_block(decoder_layer):
    # The norm is 0.5, 0.5: the gate is silu(20) = 20, up is 1.
    x, heads = one_head([1.0, 1.0])
    weights = layer(w_gate=[[40.0, 0.0]], w_up=[[2.0, 0.0]], w_down=[[1.0], [2.0]])
    assert_close(decoder_layer(x, weights, *heads, eps=3.0), tensor([[[21.0, 41.0]]]))


def test_eps_is_one_hundred_thousandth_unless_given(decoder_layer):
    # The mean square is 1e-5, so 0.003162 / sqrt(1e-5 + 1e-5) = 0.707107 is added to it.
    x, heads = one_head([10**-2.5, 10**-2.5])
    assert_close(decoder_layer(x, layer(w_v=ONE, w_o=ONE), *heads), tensor([[[0.710269, 0.710269]]]))


def test_a_layer_adds_as_much_to_a_long_stream_as_to_a_short_one(decoder_layer, plot):
    # Attention adds the norm of a token that is alone, whose root mean square is 1.
    starts, block = (0.5, 4.0, 16.0), layer(w_v=ONE, w_o=ONE)
    stream = [tensor([[[start, -start]] for start in starts])]
    for _ in range(12):
        stream.append(decoder_layer(stream[-1], block, 1, 1, tensor([0]), tensor([1.0]), eps=0.0))
    lengths = torch.cat(stream, dim=1).square().mean(dim=-1).sqrt()
    lines = {f"x starts at {start:g}": length for start, length in zip(starts, lengths, strict=True)}
    plot(range(13), lines, "o-", title="root mean square of the residual stream", xlabel="after layer", ylim=(0, 30))
    parts = {label: 1 / line[1:] for label, line in lines.items()}
    plot(range(1, 13), parts, "o-", title="the part of it that the layer has added", xlabel="layer", ylim=(0, 0.8))
    assert_close(lengths, tensor([[start + n for n in range(13)] for start in starts]))


@pytest.mark.refusal
def test_a_missing_weight_is_named(decoder_layer):
    x, heads = one_head([1.0, 1.0])
    weights = layer()
    del weights["mlp.up_proj.weight"], weights["input_layernorm.weight"]
    sentence = r"decoder_layer: weights lacks input_layernorm\.weight, mlp\.up_proj\.weight$"
    with pytest.raises(ValueError, match=sentence):
        decoder_layer(x, weights, *heads)


@pytest.mark.refusal
def test_a_bias_is_refused(decoder_layer):
    x, heads = one_head([1.0, 1.0])
    with pytest.raises(ValueError, match=r"decoder_layer: weights has no use for self_attn\.q_proj\.bias$"):
        decoder_layer(x, layer() | {"self_attn.q_proj.bias": torch.zeros(2)}, *heads)


@pytest.mark.refusal
def test_x_without_a_batch_is_refused(decoder_layer):
    x, heads = one_head([1.0, 1.0])
    with pytest.raises(ValueError, match=r"decoder_layer: x must be \[batch seq d_model\], got \[1, 2\]"):
        decoder_layer(x[0], layer(), *heads)
