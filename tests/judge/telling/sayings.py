"""What helps against an error whose text alone says what is wrong: a pattern of the text, and the advice."""

SAYINGS = {
    r"'range'": ("A range is no tensor, and cannot be computed with: torch.arange makes a tensor of it."),
    r"'(?:method|function|builtin_function_or_method|type)' (?:and|object|is)|"
    r"and '(?:method|function|builtin_function_or_method)'": (
        "A function stands where its result is meant: it lacks its parentheses, as in x.mean(-1)."
    ),
    r"numpy\.T|tensors? with <= 2 dimensions|t\(\) expects": (
        ".T and .t() are for two axes: .transpose(-1, -2) exchanges the last two of any number."
    ),
    r"Index tensor must have the same number of dimensions|index.*same number of dimensions": (
        "gather wants an index with as many axes as what it takes from: targets.unsqueeze(-1), and .squeeze(-1) "
        "afterwards."
    ),
    r"number of subscripts in the equation|einsum\(\): ": (
        "Each letter stands for one axis. Leading axes are any number, which einsum writes as `...`."
    ),
    r"Boolean value of Tensor with more than one value|truth value of an array": (
        "if, and, or, max and min of Python want one truth, and this is a tensor of many. torch.where(condition, "
        "a, b) chooses element by element; & and | combine conditions."
    ),
    r"view size is not compatible": (
        "view needs a tensor that lies in memory in this order, which it does not after a transpose: use reshape."
    ),
    r"numpy\(\) on Tensor that requires grad|unsupported ScalarType BFloat16": (
        "NumPy knows neither gradients nor bfloat16: compute with torch's functions instead."
    ),
    r"leaf [Vv]ariable that requires grad|a view of a leaf|modified by an inplace operation": (
        "x += y writes over a tensor that the gradient still needs: x = x + y makes a new one."
    ),
    r"can be converted to (?:a )?(?:Python )?[sS]calars?|cannot be converted to Scalar|"
    r"must be real number, not Tensor": (
        "The functions of math, float() and .item() take one number, and this is a tensor of many: torch.exp, "
        "torch.sqrt and so on take tensors."
    ),
    r"Expected tensor for argument #1 'indices' to have one of the following scalar types|"
    r"tensors used as indices must be": (
        "Ids are integers, and these are floats. F.embedding takes the ids first, then the table."
    ),
    r"Expected target size|Expected input batch_size|"
    r"Expected floating point type for target with class probabilities": (
        "F.cross_entropy wants the classes along axis 1: flatten all axes before the last, and the targets too."
    ),
    r"stack expects each tensor to be equal size": (
        "Only tensors of one shape can be stacked: make one number of each first, as its sum of squares."
    ),
    r"must have same number of dimensions|Sizes of tensors must match except in dimension (\d+)": (
        "What is put together must agree in all axes but the one along which it is put together."
    ),
    r"expanded size of the tensor \((\d+)\) must match the existing size \((\d+)\)|"
    r"doesn't match the broadcast shape|shape mismatch: value tensor": (
        "Axes are compared from the right: each pair must be equal, or the one that is stretched 1."
    ),
    r"input\.dim\(\) = (\d+) is not equal to len\(dims\) = (\d+)|repeat dims can not be smaller": (
        "The tensor has another number of axes than you name."
    ),
    r"value cannot be converted to type .* without overflow": (
        "The dtype of this tensor does not hold such a number. Within autocast that is half precision: "
        "torch.finfo(x.dtype).min is the lowest that a dtype holds, and -torch.inf fits in each."
    ),
    r"selected index k out of range": ("There are fewer than k entries: take min(k, x.shape[-1])."),
    r"Inplace update to inference tensor|Inference tensors cannot be saved": (
        "A tensor that was made in an earlier call, under inference_mode, is used again: keep nothing between calls."
    ),
    r"backward through the graph a second time": (
        "A result of an earlier call is used again, with its graph: keep nothing between calls."
    ),
    r"does not require grad": ("No gradient gets there: .data, detach, no_grad, .item() or NumPy has cut it off."),
    r"^math (?:domain|range) error|(?:float )?division by zero|Result too large": (
        "This number has no such result: which edge of the range is it?"
    ),
    r"object is not (?:iterable|subscriptable)": ("This is one thing, and not several: what made it?"),
}
