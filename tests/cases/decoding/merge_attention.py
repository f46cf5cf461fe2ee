"""How merge_attention is called."""

import torch

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    y_a, y_b = case.normal("batch seq head_dim"), case.normal("batch seq head_dim")
    lse_a, lse_b = (case.normal("batch seq", 3.0).to(torch.promote_types(case.dtype, torch.float32)) for _ in "ab")
    return positional(y_a, lse_a, y_b, lse_b)


CALLS = Calls(
    "batch seq half",
    arguments,
    batched={0: 1, 1: 1, 2: 1, 3: 1},
    batched_results=(0, 1),
    leading=(0, 1, 2, 3),
    very_large=({"seq": 70_000}, {"half": 35_000}),
    multiplies=True,
    results=("y", "lse"),
)
