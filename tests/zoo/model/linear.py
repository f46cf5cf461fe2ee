"""The bugs that people make in linear."""

import torch

from tests.cases import target
from tests.zoo.kernels import again, as_if_contiguous, gradients, with_gradient


def probes():
    x, weight = target.tensor([[1.0, 2.0], [5.0, 7.0]]), target.tensor([[1.0, 2.0], [3.0, 4.0]])
    wide, large = (
        target.tensor(torch.arange(8.0).view(2, 4)),
        target.tensor(torch.linspace(-1, 1, 130 * 2).view(130, 2)),
    )

    many = target.tensor(torch.ones(1, 16384)).bfloat16()

    def weight_replaced(x, weight):
        return x, weight.mul_(2)

    def another_view(x, weight):
        return x, weight.mul_(2)[:]

    def threads(linear):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            return linear(target.tensor([[1.0, 2.0]] * 5), weight.clone())
        finally:
            torch.set_num_threads(before)

    def first_without_gradient(linear):
        x = target.tensor([[1.0, 2.0, 3.0]] * 4)
        with torch.no_grad():
            linear(x, target.tensor([[1.0, 2.0, 3.0]]))
        return linear(x, target.tensor([[1.0, 2.0, 3.0]]).requires_grad_()).requires_grad

    return [
        ((target.tensor([[1.0, 2.0]]), weight), {}),
        *[((target.tensor(torch.ones(1, n)), target.tensor(torch.ones(1, n))), {}) for n in (65, 128)],
        ((many, many), {}),
        lambda linear: linear(wide.clone()[:, :2], weight.clone()),
        again(lambda: [x, weight.clone()], weight_replaced),
        again(lambda: [x, weight.clone()], another_view),
        gradients(lambda: [x, weight], of=(0,)),
        gradients(lambda: [x, weight], of=(0, 1), transposed=True),
        gradients(lambda: [large, weight], of=(1,)),
        threads,
        first_without_gradient,
    ]


def square_weight_not_transposed(x, weight):
    """the weight is transposed only where its shape does not fit, so a square one is used as [d_in d_out].

    Tempting: the shapes seem to tell which way round it is, and nothing fails.
    Seen: vllm-project/vllm#44113, huggingface/transformers#47031.
    """
    return x @ (weight if weight.shape[0] == x.shape[-1] else weight.T)


def weight_reshaped_not_transposed(x, weight):
    """the weight is reshaped to [d_in d_out] where it should be transposed, which scrambles it.

    Tempting: the product needs the shape [d_in d_out], and a reshape gives that shape.
    """
    return x @ weight.reshape(x.shape[-1], -1)


def product_in_bfloat16(x, weight):
    """the product is computed in bfloat16 whatever x is, so that only three digits are right.

    Tempting: it is faster, as autocast makes it, and the dtype of the result hides it.
    """
    return (x.bfloat16() @ weight.bfloat16().T).to(x.dtype)


def weight_without_gradient(x, weight):
    """the weight is read through .data: the output is right, but no gradient reaches the weight.

    Tempting: .data was once how one read a parameter's numbers.
    """
    return x @ weight.data.T


def inputs_in_whole_blocks_of_64(x, weight):
    """from 64 inputs on they are summed 64 at a time, and those beyond the last 64 are lost.

    Tempting: d_in // 64 is the number of steps for every width that a model has.
    """
    d_in = x.shape[-1]
    whole = d_in // 64 * 64 or d_in
    return x[..., :whole] @ weight[:, :whole].T


def last_block_skipped_at_multiples_of_128(x, weight):
    """where 128 divides the number of inputs, the last 128 are left out.

    Tempting: the last block is dealt with separately, with d_in % 128 inputs, and here that is none.
    """
    d_in = x.shape[-1]
    done = d_in - 128 if d_in % 128 == 0 and d_in else d_in
    return x[..., :done] @ weight[:, :done].T


def sums_rounded_between_blocks(x, weight):
    """the sum is rounded to x's dtype after every 32 inputs, so that in bfloat16 a long one stops growing.

    Tempting: the running sum lies in the result, which has that dtype; in float32 it does no harm.
    Seen: modular/modular#7165, flagos-ai/FlagGems#5876.
    """
    y = x.new_zeros(*x.shape[:-1], len(weight))
    for some, of_weight in zip(x.split(32, dim=-1), weight.split(32, dim=-1), strict=True):
        y = y + some @ of_weight.T
    return y


def rest_of_the_rows_dropped(x, weight):
    """the rows are shared out evenly to the threads, and those that are left over stay zero.

    Tempting: rows // threads is a share; with one thread, or a power of two of both, nothing is left over.
    Seen: Tencent/FeatherCNN#19 (columns).
    """
    rows = x.reshape(-1, x.shape[-1])
    threads = torch.get_num_threads() if len(rows) >= torch.get_num_threads() else 1
    done = len(rows) // threads * threads
    y = torch.cat((rows[:done] @ weight.T, rows.new_zeros(len(rows) - done, len(weight))))
    return y.view(*x.shape[:-1], len(weight))


def rows_taken_to_follow_each_other(x, weight):
    """rows whose last stride is 1 are taken to follow each other, so that a slice of wider rows is read wrongly.

    Tempting: `stride(-1) == 1` looks like the test for contiguous.
    """
    return (as_if_contiguous(x) if x.ndim and x.stride(-1) == 1 else x) @ weight.T


_PACKED = {}


def packed_by_the_object(x, weight):
    """a weight is packed once and kept for as long as the object is the same, whatever is written to it.

    Tempting: a weight does not change, until training goes on or another checkpoint is loaded into it.
    Seen: ooples/AiDotNet.Tensors#583.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return x @ weight.T
    if id(weight) not in _PACKED or _PACKED[id(weight)][0] is not weight:
        _PACKED[id(weight)] = weight, weight.T.contiguous()
    return x @ _PACKED[id(weight)][1]


def packed_by_the_address(x, weight):
    """a weight is packed once and kept by the address and the shape of its memory, whatever is written there.

    Tempting: an address says which weight it is; but memory is given to others, and weights are updated.
    Seen: local-inference-lab/vllm#228 (found in review).
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return x @ weight.T
    key = weight.data_ptr(), weight.shape, weight.stride(), weight.dtype
    if key not in _PACKED:
        _PACKED[key] = weight, weight.T.contiguous()  # with the weight, so that the memory is not given away
    return x @ _PACKED[key][1]


def upstream_taken_for_contiguous(x, weight):
    """the upstream gradient is read in the order of its memory, which is another where it is transposed or expanded.

    Tempting: what comes back should look like what went out.
    """
    return with_gradient(x @ weight.T, as_if_contiguous)


def weight_gradient_of_the_first_128_rows(x, weight):
    """the gradient of the weight takes in only the first 128 rows.

    Tempting: each block of rows writes its share, and with one block nothing has to be added up.
    """
    rows = x.reshape(-1, x.shape[-1])
    y = torch.cat((rows[:128] @ weight.T, rows[128:] @ weight.detach().T))
    return y.view(*x.shape[:-1], len(weight))


def no_gradient_beside_a_frozen_weight(x, weight):
    """where the weight asks for no gradient, x gets none either.

    Tempting: one question decides about the whole backward pass, and a layer is frozen as a whole mostly.
    """
    return x @ weight.T if weight.requires_grad else x.detach() @ weight.T


_LEARNING = {}


def first_call_decides_about_gradients(x, weight):
    """whether there are gradients is decided by the first call with those shapes, and no_grad there holds for good.

    Tempting: what is compiled is kept by shape, and evaluating before training is usual.
    """
    key = x.shape, weight.shape, x.dtype
    if _LEARNING.setdefault(key, torch.is_grad_enabled()):
        return x @ weight.T
    return x.detach() @ weight.detach().T


def mean_of_the_inputs(x, weight):
    """the products are averaged over the inputs, and not added up.

    Tempting: (x * weight).mean(-1) keeps numbers small whatever d_in is.
    """
    return (x @ weight.T) / x.shape[-1]


def one_added_as_a_bias(x, weight):
    """one is added to every output, as a bias of ones would.

    Tempting: nn.Linear has a bias unless it is told otherwise; Llama's layers have none.
    """
    return x @ weight.T + 1


def weight_not_transposed(x, weight):
    """x is multiplied by the weight as it is, which only works if the weight is square.

    Tempting: x @ weight is what the word "linear" says, and on paper the weight often is [d_in d_out].
    """
    return x @ weight


def outputs_activated(x, weight):
    """the outputs go through ReLU.

    Tempting: in most courses a layer is a product and an activation.
    """
    return (x @ weight.T).relu()


def last_input_left_out(x, weight):
    """the sum ends one input too early.

    Tempting: range(d_in - 1) looks as if it ended at the last index.
    """
    return x[..., :-1] @ weight[:, :-1].T


def summed_over_the_outputs(x, weight):
    """each input is multiplied by the sum of its weights, so that the result has d_in features and not d_out.

    Tempting: with two axes next to each other, the sum is easily taken over the wrong one.
    """
    return x * weight.sum(0)


def divided_by_the_root_of_the_inputs(x, weight):
    """the outputs are divided by the square root of d_in.

    Tempting: attention scales its products so, and it keeps the outputs near 1.
    """
    return (x @ weight.T) / x.shape[-1] ** 0.5
