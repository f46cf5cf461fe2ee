"""How cross_entropy_backward is called."""

from tests.cases.calls import Arguments, Point, backward_of, positional
from tests.cases.case import Case
from tests.cases.model import cross_entropy


def arguments(case: Case) -> Arguments:
    logits, targets = case.normal("batch seq vocab", 3.0), case.integers("batch seq", case.vocab)
    # As large as the tokens are many: otherwise no error would be seen in what is divided by their number.
    tokens = min(case.batch * case.seq, 2**14)
    return positional(case.uniform("", tokens, 2 * tokens), logits, targets)


def forward(layers, grad, logits, targets):
    return Point(lambda logits: layers.cross_entropy(logits, targets), (logits,), grad)


CALLS = backward_of(
    cross_entropy.CALLS,
    arguments,
    forward,
    results=("grad_logits",),
    leading=(1, 2),
)
