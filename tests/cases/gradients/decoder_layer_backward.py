"""How decoder_layer_backward is called."""

from tests.cases.calls import Arguments, Calls, Point
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


CALLS = Calls(
    "batch seq n_kv_heads groups half d_model d_ff",
    arguments,
    forward=forward,
    results=("grad_x", "gradients"),
    batched={0: 1, 1: 1},
    turns=True,
    rounds_within=True,
    multiplies=True,
    very_large=({"seq": 257}, {"d_model": 513, "d_ff": 1_025}),
)
