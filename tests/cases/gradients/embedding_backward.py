"""How embedding_backward is called."""

from tests.cases.calls import Arguments, Calls, Point, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab), case.vocab)


def forward(layers, grad, token_ids, vocab):
    weight = grad.new_zeros(vocab, grad.shape[-1])  # any: the layer is linear in it
    return Point(lambda weight: layers.embedding(token_ids, weight), (weight,), grad)


CALLS = Calls(
    "batch seq vocab d_model",
    arguments,
    forward=forward,
    results=("grad_weight",),
    leading=(0, 1),
    very_large=({"vocab": 70_000}, {"seq": 70_000}, {"seq": 5_000, "vocab": 1}, {"seq": 257, "d_model": 1_025}),
)
