"""How adamw is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    param, grad, exp_avg = (case.normal("batch n") for _ in range(3))
    # A second moment is never below the square of the first.
    exp_avg_sq = exp_avg.square() + case.uniform("batch n")
    state = (param, grad, exp_avg, exp_avg_sq, 1 + case.seed % 7, 0.1 / (1 + case.seed % 3))
    return state, {"betas": (0.8, 0.9), "eps": 10.0 ** -(case.seed % 4), "weight_decay": (case.seed % 3) / 10}


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000},
    {"batch": 70_000},
)
CALLS = Calls("batch n", arguments, very_large=VERY_LARGE)
