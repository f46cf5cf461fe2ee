"""How embedding_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import embedding


def arguments(case: Case) -> Arguments:
    return positional(case.upstream("batch seq d_model"), case.integers("batch seq", case.vocab), case.vocab)


def forward(layers, grad, token_ids, vocab):
    weight = grad.new_zeros(vocab, grad.shape[-1])  # any: the layer is linear in it
    return Point(lambda weight: layers.embedding(token_ids, weight), (weight,), grad)


CALLS = backward_of(
    embedding.CALLS,
    arguments,
    forward,
    results=("grad_weight",),
    leading=(0, 1),
)
