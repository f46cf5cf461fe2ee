"""How speculative_accept is called."""

import torch

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    """A draft that is like the target, so that some of its ids are kept."""
    draft = case.normal("seq vocab")
    target = torch.cat((draft, draft[:1])) + case.normal([case.seq + 1, case.vocab], 0.5)
    return positional(
        draft, target, case.integers("seq", case.vocab), case.uniform("seq", 0.0, 0.99), case.uniform("", 0.0, 0.99)
    )


CALLS = Calls("seq vocab", arguments, very_large=({"vocab": 70_000}, {"seq": 70_000}))
