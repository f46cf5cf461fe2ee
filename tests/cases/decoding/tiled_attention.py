"""How tiled_attention is called."""

from tests.cases.calls import Arguments, Calls
from tests.cases.case import Case
from tests.cases.model import attention

TILES = (64, 1, 2, 3, 128)


def arguments(case: Case) -> Arguments:
    args, kwargs = attention.arguments(case)
    return args, kwargs | {"tile": TILES[case.seed % len(TILES)]}


CALLS = Calls(
    attention.CALLS.sizes,
    arguments,
    batched=attention.CALLS.batched,
    batched_results=(0, 1),
    multiplies=True,
    very_large=attention.CALLS.very_large,
    results=("y", "lse"),
)
