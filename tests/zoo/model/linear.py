"""The bugs that people make in linear."""

from tests.cases import target


def probes():
    return [((target.tensor([[1.0, 2.0]]), target.tensor([[1.0, 2.0], [3.0, 4.0]])), {})]


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
