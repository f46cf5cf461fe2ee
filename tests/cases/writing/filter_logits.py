"""How filter_logits is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    # Multiples of 1/4, so that a tie is a tie in every dtype and no probability lies near a limit by rounding.
    logits = case.integers("batch seq n", 17).to(case.dtype) / 4
    temperature = [1.0, 0.5, 2.0, 0.0][case.seed % 4]
    top_k = [None, 1, 3, 50][case.seed // 4 % 4]
    return (logits,), {
        "temperature": temperature,
        "top_k": top_k,
        # Of many tokens some are equally likely at the limit, and the contract does not say which of them stay.
        "top_p": [None, 0.61803][case.seed // 16 % 2] if case.n <= 13 else None,
        "min_p": [None, 0.1][case.seed // 32 % 2],
    }


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000},
    {"seq": 70_000},
)
CALLS = Calls("batch seq n", arguments, batched={0: 1}, leading=(0,), very_large=VERY_LARGE)
