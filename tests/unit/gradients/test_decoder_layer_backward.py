"""The gradient of a decoder layer: each sum passes the gradient on, and adds what comes back from its branch."""

import pytest
import torch

from tests.cases.target import tensor
from tests.judge.assertions import assert_close

ZERO, ONE = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
NORM, FFN_NORM = "input_layernorm.weight", "post_attention_layernorm.weight"
W_V, W_O = "self_attn.v_proj.weight", "self_attn.o_proj.weight"
W_GATE, W_UP, W_DOWN = (f"mlp.{name}_proj.weight" for name in ("gate", "up", "down"))


def layer(norm=(1.0, 1.0), w_q=ZERO, w_k=ZERO, w_v=ZERO, w_o=ZERO, ffn_norm=(1.0, 1.0), w_gate=0, w_up=0, w_down=0):
    """The weights of a layer with d_model=2, one head of 2 features and d_ff=1, under Hugging Face's names."""
    weights = {
        NORM: norm,
        "self_attn.q_proj.weight": w_q,
        "self_attn.k_proj.weight": w_k,
        W_V: w_v,
        W_O: w_o,
        FFN_NORM: ffn_norm,
        W_GATE: w_gate or [[0.0, 0.0]],
        W_UP: w_up or [[0.0, 0.0]],
        W_DOWN: w_down or [[0.0], [0.0]],
    }
    return {name: tensor(values) for name, values in weights.items()}


def one_head(*tokens):
    """x, and what follows the weights: n_heads, n_kv_heads, positions, frequencies."""
    return tensor([tokens]), (1, 1, tensor(list(range(len(tokens)))), tensor([1.0]))


def test_where_both_blocks_add_nothing_grad_passes_through(decoder_layer_backward):
    x, heads = one_head([3.0, -4.0], [0.5, 7.0])
    grad, weights = tensor([[[1.0, 2.0], [4.0, -8.0]]]), layer(w_v=ONE, w_gate=[[1.0, 2.0]], w_up=[[3.0, 4.0]])
    grad_x, _ = decoder_layer_backward(grad, x, weights, *heads)
    assert_close(grad_x, grad, "the two residual sums: each passes grad on as it is")


def test_x_gets_grad_and_what_comes_back_from_attention(decoder_layer_backward):
    # A token alone attends to itself, and all projections are 1: the norm of x, which is (1, 1), gets (3, 1). Its mean
    # along (1, 1) is 2, so (1, -1) is left, and half of it since x is twice as long as its norm.
    x, heads = one_head([2.0, 2.0])
    grad_x, gradients = decoder_layer_backward(tensor([[[3.0, 1.0]]]), x, layer(w_v=ONE, w_o=ONE), *heads, eps=0.0)
    assert_close(grad_x, tensor([[[3.5, 0.5]]]), "grad, and the norm's gradient of what attention gives back")
    assert_close(gradients[NORM], tensor([3.0, 1.0]), "input_layernorm: the norm before attention")
    assert_close(gradients[W_V], tensor([[3.0, 3.0], [1.0, 1.0]]))
    assert_close(gradients[W_O], tensor([[3.0, 3.0], [1.0, 1.0]]))


def test_x_gets_grad_and_what_comes_back_from_the_feed_forward_block(decoder_layer_backward):
    # The norm is (1, -1); the gate is silu(20) = 20 with slope 1, up is 2. What w_down reads is 40 and gets
    # 0.5 · 1 + 0.25 · 2 = 1: up gets 20 and the gate 2. So the norm gets 20 · (3, 1) + 2 · (10, -10) = (80, 0). Its
    # mean along (1, -1) is 40, so (40, 40) is left, over 5.
    x, heads = one_head([5.0, -5.0])
    weights = layer(w_gate=[[10.0, -10.0]], w_up=[[3.0, 1.0]], w_down=[[0.5], [0.25]])
    grad_x, gradients = decoder_layer_backward(tensor([[[1.0, 2.0]]]), x, weights, *heads, eps=0.0)
    assert_close(grad_x, tensor([[[9.0, 10.0]]]), "grad, and the norm's gradient of what the block gives back")
    assert_close(gradients[FFN_NORM], tensor([80.0, 0.0]), "post_attention_layernorm: the norm before the block")
    assert_close(gradients[W_GATE], tensor([[2.0, -2.0]]), "which is the gate")
    assert_close(gradients[W_UP], tensor([[20.0, -20.0]]), "which is the up-projection")
    assert_close(gradients[W_DOWN], tensor([[40.0], [80.0]]))


def test_attention_gets_what_the_feed_forward_block_leaves_of_grad_too(decoder_layer_backward):
    # Attention turns (1, 1) into h = (1, -1). The gate is 20 and up is 1, so the second norm gets (20 + 10, -10), of
    # which (10, 10) goes across (1, -1): h gets (1, 0) + (10, 10) = (11, 10).
    # Back through w_o that is (-20, 0), of which (-10, 10) goes across (1, 1): x gets (11, 10) + (-10, 10).
    x, heads = one_head([1.0, 1.0])
    block = {"w_gate": [[10.0, -10.0]], "w_up": [[1.0, 0.0]], "w_down": [[1.0], [0.0]]}
    weights = layer(w_v=ONE, w_o=[[0.0, 0.0], [-2.0, 0.0]], **block)
    grad_x, gradients = decoder_layer_backward(tensor([[[1.0, 0.0]]]), x, weights, *heads, eps=0.0)
    assert_close(grad_x, tensor([[[1.0, 20.0]]]), "grad_h: what attention gets is all that comes to h")
    assert_close(gradients[W_O], tensor([[11.0, 11.0], [10.0, 10.0]]), "grad_h: what attention gets")
    assert_close(gradients[FFN_NORM], tensor([30.0, 10.0]), "the second norm read h, and not x")


def test_each_norm_has_the_weight_of_its_own_and_its_own_gradient(decoder_layer_backward):
    # As above with a first norm of (3, 5): attention adds (0, -2), so w_o is -2/3, and h is (1, -1) again. Back
    # through w_o its 10 is (-20/3, 0), times (3, 5) it is (-20, 0).
    # The second norm of (7, 11) makes (7, -11): the gate is 20 where w_gate is (9, 43/11), and up is 1 where it is
    # (1/7, 0). What comes to it is (20/7 + 9, 43/11), times (7, 11) it is (83, 43), which goes across (1, -1) as 63.
    x, heads = one_head([1.0, 1.0])
    block = {"w_gate": [[9.0, 43 / 11]], "w_up": [[1 / 7, 0.0]], "w_down": [[1.0], [0.0]]}
    weights = layer(norm=(3.0, 5.0), ffn_norm=(7.0, 11.0), w_v=ONE, w_o=[[0.0, 0.0], [-2 / 3, 0.0]], **block)
    grad_x, gradients = decoder_layer_backward(tensor([[[1.0, 0.0]]]), x, weights, *heads, eps=0.0)
    # h gets (64, 63); back through w_o that is (-42, 0), times (3, 5) it is (-126, 0), across (1, 1) it is (-63, 63).
    assert_close(gradients[NORM], tensor([-42.0, 0.0]), "which norm weight is used")
    assert_close(gradients[FFN_NORM], tensor([20 / 7 + 9, -43 / 11]), "which norm weight is used")
    assert_close(grad_x, tensor([[[1.0, 126.0]]]), "which norm weight is used")


def test_a_token_gives_to_itself_and_those_before_it(decoder_layer_backward):
    # Queries of zero: token 1 takes the mean of the norms (1, 1) and (1, -1), which each get half of its (4, 0). Across
    # (1, 1) that is (1, -1), and across (1, -1) it is (1, 1), over 5.
    x, heads = one_head([1.0, 1.0], [5.0, -5.0])
    grad = tensor([[[0.0, 0.0], [4.0, 0.0]]])
    grad_x, _ = decoder_layer_backward(grad, x, layer(w_v=ONE, w_o=ONE), *heads, eps=0.0)
    assert_close(grad_x, tensor([[[1.0, -1.0], [4.2, 0.2]]]))


def test_the_gradients_are_found_under_the_names_of_their_weights(decoder_layer_backward):
    x, heads = one_head([2.0, 2.0])
    turned = dict(reversed(layer(w_v=ONE, w_o=ONE).items()))
    _, gradients = decoder_layer_backward(tensor([[[3.0, 1.0]]]), x, turned, *heads, eps=0.0)
    assert_close(gradients[NORM], tensor([3.0, 1.0]), "weights are read by name, in whatever order they are")


def test_eps_is_the_one_passed_in_the_norm_before_attention(decoder_layer_backward):
    # 1 / sqrt(1 + 3) = 0.5: the norm gets (3, 1), of which 0.25 · 2 is taken away: 0.5 · (2.5, 0.5) is left.
    x, heads = one_head([1.0, 1.0])
    grad_x, _ = decoder_layer_backward(tensor([[[3.0, 1.0]]]), x, layer(w_v=ONE, w_o=ONE), *heads, eps=3.0)
    assert_close(grad_x, tensor([[[4.25, 1.25]]]), "eps in both norms")


def test_eps_is_the_one_passed_in_the_norm_before_the_feed_forward_block(decoder_layer_backward):
    # The norm is (0.5, 0.5), the gate is 20 and up is 1. So the norm gets (40 + 40, 0), of which 0.25 · 40 is taken
    # away: 0.5 · (70, -10) is left.
    x, heads = one_head([1.0, 1.0])
    weights = layer(w_gate=[[40.0, 0.0]], w_up=[[2.0, 0.0]], w_down=[[1.0], [2.0]])
    grad_x, _ = decoder_layer_backward(tensor([[[1.0, 0.0]]]), x, weights, *heads, eps=3.0)
    assert_close(grad_x, tensor([[[36.0, -5.0]]]), "eps in both norms")


def test_eps_is_one_hundred_thousandth_unless_given(decoder_layer_backward):
    # The mean square is 1e-5, so what goes across is multiplied by 1 / sqrt(1e-5 + 1e-5) = 223.6068.
    x, heads = one_head([10**-2.5, 10**-2.5])
    grad_x, _ = decoder_layer_backward(tensor([[[1.0, -1.0]]]), x, layer(w_v=ONE, w_o=ONE), *heads)
    assert_close(grad_x, tensor([[[224.6068, -224.6068]]]))


def test_a_stream_of_thousands_does_not_overflow_in_float16(decoder_layer_backward):
    x, heads = one_head([2000.0, 2000.0])
    weights = {name: w.half() for name, w in layer(w_v=ONE, w_o=ONE).items()}
    _, gradients = decoder_layer_backward(tensor([[[3.0, 1.0]]], torch.float16), x.half(), weights, *heads)
    assert_close(gradients[NORM], tensor([3.0, 1.0], torch.float16), "squares in at least float32")


def test_a_gradient_comes_down_twelve_layers_the_larger_the_shorter_the_stream_is(decoder_layer_backward, plot):
    # Each layer adds the norm of its x = (start + n, -start - n), which makes what comes along (1, 1) larger by
    # 1 / (start + n). Over layers m to 11 that is a factor of (start + 12) / (start + m).
    starts, block = (0.5, 4.0, 16.0), layer(w_v=ONE, w_o=ONE)
    signs, grads = tensor([[[1.0, -1.0]]]), [tensor([[[1.0, 1.0]] for _ in starts])]
    for n in reversed(range(12)):
        x = torch.cat([(start + n) * signs for start in starts])
        grads.append(decoder_layer_backward(grads[-1], x, block, 1, 1, tensor([0]), tensor([1.0]), eps=0.0)[0])
    lengths = torch.cat(grads, dim=1).square().mean(dim=-1).sqrt().flip(-1)
    lines = {f"x starts at {start:g}": length for start, length in zip(starts, lengths, strict=True)}
    title = "root mean square of the gradient, which is 1 at the top"
    plot(range(13), lines, "o-", title=title, xlabel="before layer", yscale="log")
    assert_close(lengths, tensor([[(start + 12) / (start + m) for m in range(13)] for start in starts]))


@pytest.mark.refusal
def test_a_missing_weight_is_named(decoder_layer_backward):
    x, heads = one_head([1.0, 1.0])
    weights = layer()
    del weights[W_UP], weights[NORM]
    sentence = r"decoder_layer_backward: weights lacks input_layernorm\.weight, mlp\.up_proj\.weight$"
    with pytest.raises(ValueError, match=sentence):
        decoder_layer_backward(x, x, weights, *heads)


@pytest.mark.refusal
def test_a_bias_is_refused(decoder_layer_backward):
    x, heads = one_head([1.0, 1.0])
    with pytest.raises(ValueError, match=r"decoder_layer_backward: weights has no use for self_attn\.q_proj\.bias$"):
        decoder_layer_backward(x, x, layer() | {"self_attn.q_proj.bias": torch.zeros(2)}, *heads)


@pytest.mark.refusal
def test_a_gradient_of_another_shape_is_refused(decoder_layer_backward):
    x, heads = one_head([1.0, 1.0])
    sentence = r"decoder_layer_backward: x must be \[batch seq d_model\] with .*seq=2.*, got \[1, 1, 2\]"
    with pytest.raises(ValueError, match=sentence):
        decoder_layer_backward(torch.ones(1, 2, 2), x, layer(), *heads)
