"""How decoder_layer_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of
from tests.cases.case import Case
from tests.cases.model import decoder_layer


def arguments(case: Case) -> Arguments:
    grad = case.upstream("batch seq d_model")
    args, kwargs = decoder_layer.arguments(case)
    return (grad, *args), kwargs


def forward(layers, grad, x, weights, *others, **more):
    def function(x, *of_weights):
        return layers.decoder_layer(x, dict(zip(weights, of_weights, strict=True)), *others, **more)

    return Point(function, (x, *weights.values()), grad)


CALLS = backward_of(
    decoder_layer.CALLS,
    arguments,
    forward,
    results=("grad_x", "gradients"),
    batched={0: 1, 1: 1},
)
