"""How clip_grad_norm is called."""

from tests.cases.calls import Arguments, Calls, positional
from tests.cases.case import Case


def arguments(case: Case) -> Arguments:
    shapes = ("batch n", "n", "seq batch", "", *["n"] * 29)
    limit = (1.0, 0.5, 2.0)[case.seed % 3]
    return positional([case.normal(axes) for axes in shapes[: case.count]], limit)


VERY_LARGE: tuple[dict[str, int], ...] = (
    {"n": 70_000, "count": 4},
    {"count": 33},
)
CALLS = Calls("batch seq n count", arguments, very_large=VERY_LARGE, number="out[1]", may_return_arguments=True)
