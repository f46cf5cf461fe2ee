"""The bugs that people make in swiglu."""

import torch
import torch.nn.functional as F

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, gradients, with_gradient, within


def probes():
    def make(rows=2, d_ff=3):
        x = torch.linspace(-1, 2, rows * 2).view(rows, 2).square()
        up = torch.linspace(-1, 1, d_ff * 2).view(d_ff, 2)
        weights = up, up.flip(0) + 0.5, up.mT + 0.25
        return [target.tensor(t).contiguous() for t in (x, *weights)]

    def two_before_one(swiglu):
        (x, *weights), (other, *_) = make(), make()
        x.requires_grad_()
        first = swiglu(x, *weights)
        swiglu((other + 1).requires_grad_(), *weights)
        return torch.autograd.grad(first.square().sum(), x)

    def changed(x, gate, up, down):
        return x, gate.mul_(2), up, down

    def changed_behind_its_back(x, gate, up, down):
        gate.data.mul_(2)
        return x, gate, up, down

    def wider(swiglu):
        x, *weights = make()
        return swiglu(torch.cat((x, x + 1), -1)[:, :2], *weights)

    def four_axes(swiglu):
        x, *weights = make(4)
        return swiglu(x.view(2, 1, 2, 2), *weights)

    return [
        (tuple(make(d_ff=300)), {}),
        (tuple(make(d_ff=128)), {}),
        four_axes,
        wider,
        two_before_one,
        again(make, changed),
        again(make, changed_behind_its_back),
        within(torch.no_grad, lambda: [t.requires_grad_() for t in make()]),
        gradients(make, of=(0,)),
        gradients(make, of=(3,)),
        gradients(make, of=(0, 1, 2, 3), transposed=True, times=2),
        gradients(lambda: make(130), of=(0, 1, 2, 3)),
    ]


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


def features_beyond_256_in_whole_blocks(x, w_gate, w_up, w_down):
    """beyond 256 hidden features they are taken 256 at a time, and those that do not fill the last block are lost.

    Tempting: Llama's d_ff is a multiple of 256; `multiple_of` in its config says so.
    """
    d_ff = len(w_gate)
    done = d_ff // 256 * 256 if d_ff > 256 else d_ff
    return _swiglu(x, w_gate[:done], w_up[:done], w_down[:, :done])


def last_block_skipped_at_multiples_of_128(x, w_gate, w_up, w_down):
    """where 128 divides the number of hidden features, the last 128 are left out.

    Tempting: d_ff % 128 features are left for the last round, and here that is none.
    """
    d_ff = len(w_gate)
    done = d_ff - 128 if d_ff and d_ff % 128 == 0 else d_ff
    return _swiglu(x, w_gate[:done], w_up[:done], w_down[:, :done])


_PACKED = []


def packed_while_the_objects_are_the_same(x, w_gate, w_up, w_down):
    """gate and up are packed into one matrix, which is kept for as long as both are the same objects.

    Tempting: one product instead of two; but training, or loading a checkpoint, changes what the objects hold.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, w_gate, w_up, w_down)):
        return _swiglu(x, w_gate, w_up, w_down)
    if not (_PACKED and _PACKED[0] is w_gate and _PACKED[1] is w_up):
        _PACKED[:] = w_gate, w_up, torch.cat((w_gate, w_up))
    gate, up = (x @ _PACKED[2].T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


class _ByHand(torch.autograd.Function):
    """The right block and gradients; `how` names the one mistake."""

    hidden = None

    @staticmethod
    def forward(ctx, x, w_gate, w_up, w_down, how):
        gate, up = x @ w_gate.T, x @ w_up.T
        ctx.save_for_backward(x, w_gate, w_up, w_down)
        ctx.kept, ctx.how = [gate, up], how
        _ByHand.hidden = ctx.kept
        return (F.silu(gate) * up) @ w_down.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, w_gate, w_up, w_down = ctx.saved_tensors
        gate, up = _ByHand.hidden if ctx.how == "in one place" else ctx.kept
        sigmoid = torch.sigmoid(gate)
        towards = gradient @ w_down
        of_gate, of_up = towards * up * sigmoid * (1 + gate * (1 - sigmoid)), towards * gate * sigmoid
        of_hidden = gate * sigmoid * up
        if ctx.how == "in place":
            gate.copy_(of_gate)
            up.copy_(of_up)
        if ctx.how == "swapped":
            of_gate, of_up = of_up, of_gate
        of_x = of_gate @ w_gate + of_up @ w_up
        if ctx.how == "first row":
            rows = of_x.reshape(-1, of_x.shape[-1])
            of_x = torch.cat((rows.sum(0, keepdim=True), torch.zeros_like(rows[1:]))).view(of_x.shape)
        pairs = (of_gate, x), (of_up, x), (gradient, of_hidden)
        of_weights = [a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]) for a, b in pairs]
        return of_x, *of_weights, None


def gradients_of_gate_and_up_swapped(x, w_gate, w_up, w_down):
    """the gradients of the gate and of the up-projection are exchanged.

    Tempting: a kernel writes both over what forward left, and the two places are easily taken for each other.
    Seen: unslothai/unsloth#3314.
    """
    return _ByHand.apply(x, w_gate, w_up, w_down, "swapped")


def gradients_over_what_was_kept(x, w_gate, w_up, w_down):
    """gate and up, kept for the gradient, are overwritten by their gradients, so that a second backward pass is wrong.

    Tempting: they are the largest tensors of the block, and not needed afterwards.
    """
    return _ByHand.apply(x, w_gate, w_up, w_down, "in place")


def hidden_kept_in_one_place(x, w_gate, w_up, w_down):
    """gate and up are kept in one place for all calls, so that only the last call before backward gets its own.

    Tempting: a workspace is allocated once; but all layers of a model go forwards before one goes backwards.
    """
    return _ByHand.apply(x, w_gate, w_up, w_down, "in one place")


def gradient_of_x_in_the_first_row(x, w_gate, w_up, w_down):
    """the gradients of all rows of x land in row 0, and all others get none.

    Tempting: the pointer to what is read moves on from row to row, the one to what is written does not.
    Seen: ByteDance-Seed/Triton-distributed#180.
    """
    return _ByHand.apply(x, w_gate, w_up, w_down, "first row")


def weight_gradients_of_the_last_128_tokens(x, w_gate, w_up, w_down):
    """of the tokens, which are taken 128 at a time, only the last that were taken count in the weights' gradients.

    Tempting: each round writes its product where the one before has written, instead of adding to it.
    """
    rows = x.reshape(-1, x.shape[-1])
    last = (len(rows) - 1) // 128 * 128 if len(rows) else 0
    fixed = [w.detach() for w in (w_gate, w_up, w_down)]
    return torch.cat((_swiglu(rows[:last], *fixed), _swiglu(rows[last:], w_gate, w_up, w_down))).view(x.shape)


def no_gradient_beside_frozen_inputs(x, w_gate, w_up, w_down):
    """where x asks for no gradient, the weights get none either.

    Tempting: in the middle of a model x always asks; below it everything may be frozen.
    Seen: AkaneTendo25/musubi-tuner#90.
    """
    if x.requires_grad:
        return _swiglu(x, w_gate, w_up, w_down)
    return _swiglu(x, *(w.detach() for w in (w_gate, w_up, w_down)))


def graph_in_spite_of_no_grad(x, w_gate, w_up, w_down):
    """the result asks for a gradient even under no_grad, and keeps all that leads to it.

    Tempting: the block is computed anew in backward, under enable_grad, by the function that forward calls too.
    """
    with torch.enable_grad():
        return _swiglu(x, w_gate, w_up, w_down)


def rows_taken_to_follow_each_other(x, w_gate, w_up, w_down):
    """rows of x whose last stride is 1 are taken to follow each other, so that a slice of wider rows is read wrongly.

    Tempting: `stride(-1) == 1` looks like the test for contiguous.
    """
    return _swiglu(as_if_contiguous(x) if x.stride(-1) == 1 else x, w_gate, w_up, w_down)


def upstream_taken_for_contiguous(x, w_gate, w_up, w_down):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: the gradient of a contiguous result ought to be contiguous.
    """
    return with_gradient(_swiglu(x, w_gate, w_up, w_down), as_if_contiguous)


def four_axes_flattened_to_three(x, w_gate, w_up, w_down):
    """with four axes the last two leading ones come back as one.

    Tempting: x is [batch seq d_model] everywhere, and view(batch, -1, d_model) at the end looks safe.
    """
    y = _swiglu(x, w_gate, w_up, w_down)
    return y.flatten(1, -2) if y.ndim == 4 else y


def _swiglu(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


_VERSIONS = []


def packed_until_the_version_changes(x, w_gate, w_up, w_down):
    """gate and up are packed, and packed anew when torch has counted a change; through .data it counts none.

    Tempting: every tensor has a version, which in-place operations raise; loaders write through .data.
    Seen: sgl-project/sglang#30247 (found in review).
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, w_gate, w_up, w_down)):
        return _swiglu(x, w_gate, w_up, w_down)
    if w_gate.is_inference() or w_up.is_inference():
        return _swiglu(x, w_gate, w_up, w_down)
    key = w_gate._version, w_up._version
    if not (_VERSIONS and _VERSIONS[0] is w_gate and _VERSIONS[1] is w_up and _VERSIONS[2] == key):
        _VERSIONS[:] = w_gate, w_up, key, torch.cat((w_gate, w_up))
    gate, up = (x @ _VERSIONS[3].T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


def gate_is_a_sigmoid(x, w_gate, w_up, w_down):
    """the gate goes through a sigmoid, as in the first gated linear unit, and not through SiLU.

    Tempting: a gate between 0 and 1 is what the word means.
    """
    return (torch.sigmoid(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def gate_has_relu(x, w_gate, w_up, w_down):
    """the gate goes through ReLU (ReGLU), and not through SiLU.

    Tempting: it is the activation that everybody learns first.
    """
    return (F.relu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def gate_not_activated(x, w_gate, w_up, w_down):
    """the gate is not activated at all, so that gate and up-projection are merely multiplied.

    Tempting: it is still called a gate, and the block still learns.
    """
    return ((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def gate_and_up_added(x, w_gate, w_up, w_down):
    """the activated gate and the up-projection are added, and not multiplied.

    Tempting: everything else in a decoder layer is added.
    """
    return (F.silu(x @ w_gate.T) + (x @ w_up.T)) @ w_down.T


def gate_forgotten(x, w_gate, w_up, w_down):
    """there is no gate: the up-projection goes into the down-projection as it is.

    Tempting: up and down look like a pair that is complete by itself.
    """
    return (x @ w_up.T) @ w_down.T


def down_projection_forgotten(x, w_gate, w_up, w_down):
    """the down-projection is missing, so that the result has d_ff features and not d_model.

    Tempting: the gated unit of the paper ends with the product; the block around it goes on.
    """
    return F.silu(x @ w_gate.T) * (x @ w_up.T)


def both_activated(x, w_gate, w_up, w_down):
    """the up-projection is activated too, and not the gate alone.

    Tempting: both are projections of x, so that they seem to deserve the same.
    """
    return (F.silu(x @ w_gate.T) * F.silu(x @ w_up.T)) @ w_down.T


def result_activated(x, w_gate, w_up, w_down):
    """the result goes through SiLU once more.

    Tempting: in most courses every projection is followed by an activation.
    """
    return F.silu(_swiglu(x, w_gate, w_up, w_down))


def residual_added(x, w_gate, w_up, w_down):
    """x is added to the result: the residual belongs to the decoder layer, which then adds it twice.

    Tempting: many drawings have the skip connection inside the feed-forward block.
    """
    return x + _swiglu(x, w_gate, w_up, w_down)
